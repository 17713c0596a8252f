namespace Unikraft.Platform;

/// <summary>The format of a file that holds a disk. It is never guessed: a guest can make a raw disk look like anything.</summary>
public enum DiskImageFormat
{
    /// <summary>The bytes of the disk, and nothing else.</summary>
    Raw = 0,

    /// <summary>qcow2, version 2 or 3. Its backing files, if it has any, are in its directory, at any depth, and their format is stated.</summary>
    Qcow2 = 1,
}
