namespace Unikraft.Platform;

/// <summary>What is wrong with a file of a snapshot.</summary>
public enum SnapshotFileError
{
    /// <summary>It is not there.</summary>
    Missing = 1,

    /// <summary>Its bytes are not those that were written: changed, too few or too many.</summary>
    Damaged = 2,

    /// <summary>It is sound, but not the file that should be there: swapped, renamed or from elsewhere.</summary>
    Mismatched = 3,

    /// <summary>It was written in a version of the format that this version of the platform does not know.</summary>
    UnknownVersion = 4,
}
