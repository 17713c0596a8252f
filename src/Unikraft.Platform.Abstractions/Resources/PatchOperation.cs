namespace Unikraft.Platform;

/// <summary>One change of a property. Tags, delete lock and autokill are those of instances, checkpoints and templates, the others of instances only.</summary>
/// <remarks>
/// A patch is a list of these, applied in order. It is applied as a whole or, when one of them is not allowed, not at all. Image, arguments, environment, memory,
/// vCPUs and ROMs are what an instance boots with: while it runs, or holds a snapshot that its next start continues from, such a change is kept as one of
/// <see cref="Instance.Updates"/> and takes effect when the instance has stopped and its next start boots the image.
/// </remarks>
public abstract record PatchOperation
{
    private PatchOperation()
    {
    }

    /// <summary>Property <c>tags</c>, operation <c>add</c>: adds those tags that are not there.</summary>
    /// <param name="Tags">Tags, each of 1 to 256 letters, digits and <c>- + _ . : =</c>. A resource has up to 16.</param>
    public sealed record AddTags(params IReadOnlyList<string> Tags) : PatchOperation;

    /// <summary>Property <c>tags</c>, operation <c>del</c>: removes those tags that are there.</summary>
    /// <param name="Tags">Tags, by the same rules.</param>
    public sealed record DelTags(params IReadOnlyList<string> Tags) : PatchOperation;

    /// <summary>Property <c>tags</c>, operation <c>set</c>: replaces all tags.</summary>
    /// <param name="Tags">Tags, by the same rules. None removes all.</param>
    public sealed record SetTags(params IReadOnlyList<string> Tags) : PatchOperation;

    /// <summary>Property <c>delete_lock</c>, operation <c>set</c>.</summary>
    /// <param name="Enabled">Whether deletion is refused from now on.</param>
    public sealed record SetDeleteLock(bool Enabled) : PatchOperation;

    /// <summary>Property <c>autokill</c>, operation <c>set</c>: replaces the policy. The time goes on counting from where it did.</summary>
    /// <param name="Policy">The policy; <see langword="null"/> for none.</param>
    public sealed record SetAutokill(AutokillPolicy? Policy) : PatchOperation;

    /// <summary>Property <c>annotations</c>, operation <c>set</c>: replaces all annotations, at once.</summary>
    /// <param name="Annotations">The annotations, by the rules of <see cref="CreateInstanceRequest.Annotations"/>.</param>
    public sealed record SetAnnotations(IReadOnlyDictionary<string, string> Annotations) : PatchOperation;

    /// <summary>Property <c>annotations</c>, operation <c>add</c>: adds annotations, or gives those that are there another value, at once.</summary>
    /// <param name="Annotations">The annotations, by the same rules.</param>
    public sealed record AddAnnotations(IReadOnlyDictionary<string, string> Annotations) : PatchOperation;

    /// <summary>Property <c>annotations</c>, operation <c>del</c>: removes annotations that are there, at once.</summary>
    /// <param name="Keys">Their keys.</param>
    public sealed record DelAnnotations(params IReadOnlyList<string> Keys) : PatchOperation;

    /// <summary>Property <c>image</c>, operation <c>set</c>.</summary>
    /// <param name="Image">The image to boot.</param>
    public sealed record SetImage(GuestImage Image) : PatchOperation;

    /// <summary>Property <c>args</c>, operation <c>set</c>: replaces all arguments.</summary>
    /// <param name="Args">The arguments.</param>
    public sealed record SetArgs(params IReadOnlyList<string> Args) : PatchOperation;

    /// <summary>Property <c>args</c>, operation <c>add</c>: adds arguments behind those that are there.</summary>
    /// <param name="Args">The arguments.</param>
    public sealed record AddArgs(params IReadOnlyList<string> Args) : PatchOperation;

    /// <summary>Property <c>args</c>, operation <c>del</c>: removes all arguments that are equal to one of these.</summary>
    /// <param name="Args">The arguments.</param>
    public sealed record DelArgs(params IReadOnlyList<string> Args) : PatchOperation;

    /// <summary>Property <c>env</c>, operation <c>set</c>: replaces the environment.</summary>
    /// <param name="Env">The environment.</param>
    public sealed record SetEnv(IReadOnlyDictionary<string, string> Env) : PatchOperation;

    /// <summary>Property <c>env</c>, operation <c>add</c>: adds variables, or gives those that are there another value.</summary>
    /// <param name="Env">The variables.</param>
    public sealed record AddEnv(IReadOnlyDictionary<string, string> Env) : PatchOperation;

    /// <summary>Property <c>env</c>, operation <c>del</c>: removes variables that are there.</summary>
    /// <param name="Names">Their names.</param>
    public sealed record DelEnv(params IReadOnlyList<string> Names) : PatchOperation;

    /// <summary>Property <c>memory_mb</c>, operation <c>set</c>.</summary>
    /// <param name="MemoryMb">The size of the memory in MiB, in the range of the backend.</param>
    public sealed record SetMemoryMb(int MemoryMb) : PatchOperation;

    /// <summary>Property <c>vcpus</c>, operation <c>set</c>.</summary>
    /// <param name="Vcpus">The number of vCPUs, in the range of the backend.</param>
    public sealed record SetVcpus(int Vcpus) : PatchOperation;

    /// <summary>Property <c>roms</c>, operation <c>set</c>: replaces all ROMs.</summary>
    /// <param name="Roms">The ROMs, up to 8, each with a name of its own.</param>
    public sealed record SetRoms(params IReadOnlyList<InstanceRom> Roms) : PatchOperation;

    /// <summary>Property <c>roms</c>, operation <c>add</c>: adds ROMs, each in place of one that has its name.</summary>
    /// <param name="Roms">The ROMs, each with a name of its own. An instance has up to 8.</param>
    public sealed record AddRoms(params IReadOnlyList<InstanceRom> Roms) : PatchOperation;

    /// <summary>Property <c>roms</c>, operation <c>del</c>: removes ROMs that are there.</summary>
    /// <param name="Names">Their names.</param>
    public sealed record DelRoms(params IReadOnlyList<string> Names) : PatchOperation;

    /// <summary>Property <c>services</c>, operation <c>set</c>: replaces all services, at once. In the API it is a property of the service group.</summary>
    /// <param name="Services">The services. None removes all.</param>
    public sealed record SetServices(params IReadOnlyList<InstanceService> Services) : PatchOperation;

    /// <summary>Property <c>scale_to_zero</c>, operation <c>set</c>: takes effect at once; a cooldown counts from then.</summary>
    /// <param name="ScaleToZero">The policy; <see langword="null"/> for none. An instance that is in standby stays there until it is started.</param>
    public sealed record SetScaleToZero(ScaleToZero? ScaleToZero) : PatchOperation;
}
