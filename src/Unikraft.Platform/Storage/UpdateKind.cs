namespace Unikraft.Platform.Storage;

/// <summary>What an <see cref="UpdateRecord"/> changes and how. The numbers are those in files.</summary>
internal enum UpdateKind
{
    None = 0,
    SetImage = 1,
    SetArgs = 2,
    AddArgs = 3,
    DelArgs = 4,
    SetEnv = 5,
    AddEnv = 6,
    DelEnv = 7,
    SetMemoryMb = 8,
    SetVcpus = 9,
    SetRoms = 10,
    AddRoms = 11,
    DelRoms = 12,
}
