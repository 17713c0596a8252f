namespace Unikraft.Platform.Storage;

/// <summary>A change of what an instance boots with that waits for the instance to boot its image.</summary>
/// <param name="Kind">What is changed and how.</param>
internal sealed record UpdateRecord(UpdateKind Kind)
{
    public ImageRecord? Image { get; init; }

    /// <summary>Arguments, or names of variables.</summary>
    public IReadOnlyList<string>? Values { get; init; }

    public IReadOnlyDictionary<string, string>? Env { get; init; }

    public int Number { get; init; }

    public IReadOnlyList<InstanceRom>? Roms { get; init; }

    /// <summary>Whether it has what its kind needs.</summary>
    internal bool IsUsable => Kind switch
    {
        UpdateKind.SetImage => Image is { Name.Length: > 0 } && Image.Digests.All(static digest => digest.Length == 2 * Checksum.Size),
        UpdateKind.SetArgs or UpdateKind.AddArgs or UpdateKind.DelArgs or UpdateKind.DelEnv or UpdateKind.DelRoms => Values?.All(static value => value is not null) == true,
        UpdateKind.SetEnv or UpdateKind.AddEnv => Env?.Values.All(static value => value is not null) == true,
        UpdateKind.SetMemoryMb or UpdateKind.SetVcpus => Number > 0,
        UpdateKind.SetRoms or UpdateKind.AddRoms => Roms?.All(static rom => rom is { Name: not null, Path: not null }) == true,
        _ => false,
    };

    internal static UpdateRecord Of(PatchOperation operation, DataDirectory data) => operation switch
    {
        PatchOperation.SetImage set => new UpdateRecord(UpdateKind.SetImage) { Image = data.Images.RecordOf(set.Image) },
        PatchOperation.SetArgs set => new UpdateRecord(UpdateKind.SetArgs) { Values = set.Args },
        PatchOperation.AddArgs add => new UpdateRecord(UpdateKind.AddArgs) { Values = add.Args },
        PatchOperation.DelArgs del => new UpdateRecord(UpdateKind.DelArgs) { Values = del.Args },
        PatchOperation.SetEnv set => new UpdateRecord(UpdateKind.SetEnv) { Env = set.Env },
        PatchOperation.AddEnv add => new UpdateRecord(UpdateKind.AddEnv) { Env = add.Env },
        PatchOperation.DelEnv del => new UpdateRecord(UpdateKind.DelEnv) { Values = del.Names },
        PatchOperation.SetMemoryMb set => new UpdateRecord(UpdateKind.SetMemoryMb) { Number = set.MemoryMb },
        PatchOperation.SetVcpus set => new UpdateRecord(UpdateKind.SetVcpus) { Number = set.Vcpus },
        PatchOperation.SetRoms set => new UpdateRecord(UpdateKind.SetRoms) { Roms = set.Roms },
        PatchOperation.AddRoms add => new UpdateRecord(UpdateKind.AddRoms) { Roms = add.Roms },
        PatchOperation.DelRoms del => new UpdateRecord(UpdateKind.DelRoms) { Values = del.Names },
        _ => throw new ArgumentOutOfRangeException(nameof(operation), operation, "It takes effect at once."),
    };

    internal PatchOperation ToOperation(DataDirectory data) => Kind switch
    {
        UpdateKind.SetImage => new PatchOperation.SetImage(data.Images.Load(Image!)),
        UpdateKind.SetArgs => new PatchOperation.SetArgs(Values!),
        UpdateKind.AddArgs => new PatchOperation.AddArgs(Values!),
        UpdateKind.DelArgs => new PatchOperation.DelArgs(Values!),
        UpdateKind.SetEnv => new PatchOperation.SetEnv(Env!),
        UpdateKind.AddEnv => new PatchOperation.AddEnv(Env!),
        UpdateKind.DelEnv => new PatchOperation.DelEnv(Values!),
        UpdateKind.SetMemoryMb => new PatchOperation.SetMemoryMb(Number),
        UpdateKind.SetRoms => new PatchOperation.SetRoms(Roms!),
        UpdateKind.AddRoms => new PatchOperation.AddRoms(Roms!),
        UpdateKind.DelRoms => new PatchOperation.DelRoms(Values!),
        _ => new PatchOperation.SetVcpus(Number),
    };
}
