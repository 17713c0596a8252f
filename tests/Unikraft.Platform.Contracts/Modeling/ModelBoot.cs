using System.Collections.Immutable;
using System.Globalization;

namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>What an instance boots with.</summary>
/// <param name="Image">The name of its image among those of the tests.</param>
/// <param name="Args">Its arguments.</param>
/// <param name="Env">Its environment.</param>
/// <param name="MemoryMb">Its memory in MiB.</param>
/// <param name="Vcpus">The number of its vCPUs.</param>
/// <param name="Roms">The names of its ROMs.</param>
public sealed record ModelBoot(
    string Image,
    ImmutableArray<string> Args,
    ImmutableSortedDictionary<string, string> Env,
    int MemoryMb,
    int Vcpus,
    ImmutableSortedSet<string> Roms)
{
    // Any file will do.
    private static readonly string s_romPath = typeof(ModelBoot).Assembly.Location;

    /// <summary>The guest that ticks.</summary>
    public const string Counter = "counter";

    /// <summary>The guest that crashes as soon as it runs.</summary>
    public const string Crash = "crash";

    /// <summary>The guest that keeps records on a volume.</summary>
    public const string Store = "kv";

    /// <summary>A counter as it is created.</summary>
    public static ModelBoot OfCounter { get; } = Of(Counter, "--period-ms", "0");

    /// <summary>A crash as it is created.</summary>
    public static ModelBoot OfCrash { get; } = Of(Crash, "div0");

    /// <summary>A store as it is created.</summary>
    public static ModelBoot OfStore { get; } = Of(Store);

    /// <summary>Whether the guest ticks.</summary>
    public bool Counts => string.Equals(Image, Counter, StringComparison.Ordinal);

    /// <summary>Whether the guest keeps records.</summary>
    public bool Stores => string.Equals(Image, Store, StringComparison.Ordinal);

    /// <summary>Whether the guest crashes as soon as it runs.</summary>
    public bool Crashes => string.Equals(Image, Crash, StringComparison.Ordinal);

    /// <summary>What is booted with after a change.</summary>
    /// <param name="operation">The change.</param>
    /// <param name="images">The name in the tests of an image.</param>
    public ModelBoot After(PatchOperation operation, Func<GuestImage, string> images) => operation switch
    {
        PatchOperation.SetImage set => this with { Image = images(set.Image) },
        PatchOperation.SetArgs set => this with { Args = [.. set.Args] },
        PatchOperation.AddArgs add => this with { Args = Args.AddRange(add.Args) },
        PatchOperation.DelArgs del => this with { Args = Args.RemoveAll(arg => del.Args.Contains(arg, StringComparer.Ordinal)) },
        PatchOperation.SetEnv set => this with { Env = set.Env.ToImmutableSortedDictionary(StringComparer.Ordinal) },
        PatchOperation.AddEnv add => this with { Env = Env.SetItems(add.Env) },
        PatchOperation.DelEnv del => this with { Env = Env.RemoveRange(del.Names) },
        PatchOperation.SetMemoryMb set => this with { MemoryMb = set.MemoryMb },
        PatchOperation.SetVcpus set => this with { Vcpus = set.Vcpus },
        PatchOperation.SetRoms set => this with { Roms = Roms.Clear().Union(NamesOf(set.Roms)) },
        PatchOperation.AddRoms add => this with { Roms = Roms.Union(NamesOf(add.Roms)) },
        PatchOperation.DelRoms del => this with { Roms = Roms.Except(del.Names) },
        _ => this,
    };

    /// <summary>What is compared with the platform.</summary>
    public static string Describe(
        string image,
        IEnumerable<string> args,
        IEnumerable<KeyValuePair<string, string>> env,
        int memoryMb,
        int vcpus,
        IEnumerable<InstanceRom> roms) => string.Create(
            CultureInfo.InvariantCulture,
            $"{image} {string.Join(' ', args)} {string.Join(' ', env.Select(entry => $"{entry.Key}={entry.Value}").Order(StringComparer.Ordinal))} {memoryMb} MiB/{vcpus} roms={string.Join(',', NamesOf(roms).Order(StringComparer.Ordinal))}");

    /// <summary>A ROM.</summary>
    public static InstanceRom Rom(string name) => new() { Name = name, Path = s_romPath };

    private static IEnumerable<string> NamesOf(IEnumerable<InstanceRom> roms) => roms.Select(static rom => rom.Name);

    private static ModelBoot Of(string image, params ImmutableArray<string> args) =>
        new(image, args, ImmutableSortedDictionary.Create<string, string>(StringComparer.Ordinal), MemoryMb: 64, Vcpus: 1, ImmutableSortedSet.Create<string>(StringComparer.Ordinal));
}
