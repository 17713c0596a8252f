namespace Unikraft.Platform;

/// <summary>Creates, clones, attaches and keeps volumes: disks of instances.</summary>
/// <remarks>
/// Safe for concurrent use. Every method throws <see cref="ResourceNotFoundException"/> for an unknown volume, <see cref="StorageException"/>,
/// <see cref="Volumes.BlockDeviceException"/> or <see cref="Volumes.DiskImageException"/> when the host cannot read or write, and
/// <see cref="ObjectDisposedException"/> after the platform was disposed of.
/// </remarks>
public interface IVolumeStore
{
    /// <summary>Creates a volume.</summary>
    /// <param name="request">What to create.</param>
    /// <param name="cancellationToken">Cancels the creation; nothing of the volume remains then.</param>
    /// <exception cref="InvalidRequestException">The request contradicts itself or is out of range.</exception>
    /// <exception cref="NameConflictException">The name is taken.</exception>
    /// <exception cref="PlatformException"><see cref="PlatformErrorCode.ToolMissing"/>: the host has no <c>mkfs.ext4</c>, or it failed.</exception>
    Task<Volume> CreateAsync(CreateVolumeRequest request, CancellationToken cancellationToken = default);

    /// <summary>Clones a volume as it is at this moment, also while instances write to it. Takes as long for any size.</summary>
    /// <remarks>Waits while the images of the volume are being verified, or 32 of them and more folded, which takes the longer the more is on it; guests go on.</remarks>
    /// <param name="volume">The volume; for a template use <see cref="CreateVolumeRequest.Template"/>.</param>
    /// <param name="request">What the clone is called. Default: a generated name.</param>
    /// <param name="cancellationToken">Cancels the cloning; nothing of the clone remains then.</param>
    /// <exception cref="InvalidRequestException">The volume is a template or no block device.</exception>
    /// <exception cref="NameConflictException">The name is taken.</exception>
    Task<Volume> CloneAsync(NameOrUuid volume, CloneVolumeRequest? request = null, CancellationToken cancellationToken = default);

    /// <summary>Attaches a volume to an instance. When that is not stopped, it is attached once it is, or goes on from a snapshot: the attachment is pending until then.</summary>
    /// <param name="volume">The volume.</param>
    /// <param name="request">To which instance, and how.</param>
    /// <param name="cancellationToken">Cancels the attachment as long as it has not begun.</param>
    /// <exception cref="InvalidRequestException">The path is not one, or the instance has as many volumes as it can, or another one there.</exception>
    /// <exception cref="VolumeBusyException">Another instance has the volume, and one of both could write to it.</exception>
    Task<Volume> AttachAsync(NameOrUuid volume, AttachVolumeRequest request, CancellationToken cancellationToken = default);

    /// <summary>Detaches a volume. From an instance that is not stopped, it is detached once that is: the detachment is pending until then.</summary>
    /// <param name="volume">The volume. One that an instance owns is deleted when it is detached.</param>
    /// <param name="from">The instance. Default: all that have it.</param>
    /// <param name="cancellationToken">Cancels the detachment as long as it has not begun.</param>
    /// <exception cref="InvalidRequestException">The volume is not attached to that instance.</exception>
    Task<Volume> DetachAsync(NameOrUuid volume, NameOrUuid? from = null, CancellationToken cancellationToken = default);

    /// <summary>Makes a volume larger. The guest sees it at its next start.</summary>
    /// <param name="volume">The volume.</param>
    /// <param name="sizeMb">The new size in MiB, not less than the old one.</param>
    /// <param name="cancellationToken">Cancels the change as long as it has not begun.</param>
    /// <exception cref="InvalidRequestException">The size is smaller or out of range, or the volume cannot be resized.</exception>
    /// <exception cref="VolumeBusyException">An instance uses it. Stop it first.</exception>
    Task<Volume> ResizeAsync(NameOrUuid volume, int sizeMb, CancellationToken cancellationToken = default);

    /// <summary>Turns a volume that is attached to no instance into a template of the same UUID and name. There is no way back.</summary>
    /// <param name="volume">The volume.</param>
    /// <param name="cancellationToken">Cancels the conversion as long as it has not begun.</param>
    /// <exception cref="VolumeBusyException">It is attached to an instance. Detach it first.</exception>
    Task<Volume> ConvertAsync(NameOrUuid volume, CancellationToken cancellationToken = default);

    /// <summary>Deletes a volume or a volume template. What its clones need of it stays until they are gone.</summary>
    /// <param name="volume">The volume.</param>
    /// <param name="cancellationToken">Cancels the deletion as long as it has not begun.</param>
    /// <exception cref="DeletionProtectedException">It has a delete lock.</exception>
    /// <exception cref="VolumeBusyException">It is attached to an instance, or a checkpoint or a template owns it.</exception>
    Task DeleteAsync(NameOrUuid volume, CancellationToken cancellationToken = default);

    /// <summary>Changes the tags and the delete lock of a volume: all that is asked for, or nothing.</summary>
    /// <param name="volume">The volume.</param>
    /// <param name="operations">What to change, in order. Volumes have no autokill policy.</param>
    /// <param name="cancellationToken">Cancels the patch as long as it has not begun.</param>
    /// <exception cref="InvalidRequestException">An operation is not allowed. Nothing was changed.</exception>
    Task<Volume> PatchAsync(NameOrUuid volume, IReadOnlyList<PatchOperation> operations, CancellationToken cancellationToken = default);

    /// <summary>Looks a volume or a volume template up.</summary>
    /// <param name="volume">The volume.</param>
    Volume Get(NameOrUuid volume);

    /// <summary>Lists all volumes, oldest first, without volume templates.</summary>
    IReadOnlyList<Volume> List();

    /// <summary>Lists all volume templates, those of checkpoints included, oldest first.</summary>
    IReadOnlyList<Volume> ListTemplates();
}
