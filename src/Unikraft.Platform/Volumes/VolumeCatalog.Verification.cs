using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Storage;
using Unikraft.Platform.Volumes.Qcow2;

namespace Unikraft.Platform.Volumes;

/// <content>Whether volumes are what they were: those that are not part of a snapshot, which is verified as a whole.</content>
internal sealed partial class VolumeCatalog
{
    // Linux' number, which .NET passes on as HResult.
    private const int InputOutput = 5;

    /// <summary>The volumes that no snapshot has, in which there is something to verify.</summary>
    public IReadOnlyList<StoredVolume> ListUnkept() =>
        Volatile.Read(ref _files) is null ? [] : [.. List().Where(static volume => volume.Failure is not null || (volume.IsBlock && !volume.Record.IsKept))];

    /// <summary>
    /// Verifies volumes. Images that do not change any more are compared with their checksums, where they have one. The others, to which guests write, are checked for
    /// contradictions while nobody has them open.
    /// </summary>
    /// <param name="volumes">The volumes.</param>
    /// <param name="progress">Told how much of an image has been read.</param>
    /// <param name="onVerified">Called for each volume.</param>
    /// <param name="cancellationToken">Cancels the verification.</param>
    /// <returns>What is damaged, and the volumes and instances that need it.</returns>
    /// <exception cref="StorageException">The host refused.</exception>
    public async Task<IReadOnlyList<DataDamage>> VerifyAsync(
        IReadOnlyList<StoredVolume> volumes,
        IProgress<SnapshotProgress>? progress,
        Action onVerified,
        CancellationToken cancellationToken)
    {
        if (Volatile.Read(ref _files) is null)
        {
            return [];
        }

        List<DataDamage> found = FindAside() is { } aside ? [aside] : [];
        Dictionary<string, string> seen = new(StringComparer.Ordinal);
        foreach (StoredVolume volume in volumes)
        {
            cancellationToken.ThrowIfCancellationRequested();
            await VerifyOneAsync(volume, seen, found, progress, cancellationToken).ConfigureAwait(false);
            onVerified();
        }

        return found;
    }

    private async Task VerifyOneAsync(
        StoredVolume volume,
        Dictionary<string, string> seen,
        List<DataDamage> found,
        IProgress<SnapshotProgress>? progress,
        CancellationToken cancellationToken)
    {
        Guid[] dependents = DependentsOf(volume);
        if (volume.Failure is { } failure)
        {
            found.Add(DescribeFailure(volume, failure, dependents));
            return;
        }

        using Turns turn = await Turns.TakeAsync([volume], cancellationToken).ConfigureAwait(false);
        lock (_lock)
        {
            // Deleted meanwhile: that its image is gone is no damage. And what has become part of a snapshot is verified with that.
            if (!_volumes.Has(volume.Identity.Uuid) || volume.Record.IsKept)
            {
                return;
            }
        }

        await Task.Run(
            () =>
            {
                SettleSize(volume);
                Verify(volume, dependents, seen, found, progress, cancellationToken);
            },
            cancellationToken).ConfigureAwait(false);
    }

    /// <summary>What is known to be damaged without looking again: volumes that cannot be used, and a journal that was put aside.</summary>
    /// <exception cref="StorageException">The host refused.</exception>
    public IReadOnlyList<DataDamage> FindUnusable()
    {
        if (Volatile.Read(ref _files) is null)
        {
            return [];
        }

        List<DataDamage> found = FindAside() is { } aside ? [aside] : [];
        foreach (StoredVolume volume in List())
        {
            if (volume.Failure is { } failure)
            {
                found.Add(DescribeFailure(volume, failure, DependentsOf(volume)));
            }
        }

        return found;
    }

    private DataDamage DescribeFailure(StoredVolume volume, Exception failure, Guid[] dependents) =>
        new(DamagedFileOf(failure) ?? (volume.Record.Top is { } top ? Images.PathOf(top) : Images.Path), failure.Message, dependents);

    /// <summary>The file of an image that is missing, is not what it should be, or cannot be read from the disk; <see langword="null"/> when the host refused, which may be over at the next attempt.</summary>
    private static string? DamagedFileOf(Exception failure) => failure switch
    {
        DiskImageException { Error: DiskImageError.InUse } or DiskImageException { Error: DiskImageError.Unreadable, InnerException: not null } => null,
        DiskImageException image => image.Path,
        BlockDeviceException { Error: BlockDeviceError.Corrupt } device => device.Device,
        BlockDeviceException { InnerException.HResult: InputOutput } device => device.Device,
        _ => null,
    };

    private DataDamage? FindAside() => VolumeJournal.FindDamage(Images.Files) is { } aside
        ? new DataDamage(
            Path.Combine(Images.Path, VolumeJournal.FileName),
            $"was damaged, and may have known volumes that are missing now. What was found is '{aside}': remove that when nothing is needed of it.",
            [])
        : null;

    private Guid[] DependentsOf(StoredVolume volume)
    {
        lock (_lock)
        {
            return [volume.Identity.Uuid, .. volume.Mounts.Select(static mount => mount.Owner.Identity.Uuid)];
        }
    }

    // An image that several volumes are based on is read once.
    private void Verify(StoredVolume volume, Guid[] dependents, Dictionary<string, string> seen, List<DataDamage> found, IProgress<SnapshotProgress>? progress, CancellationToken cancellationToken)
    {
        foreach (string image in Images.ChainOf(volume.Record.Top!))
        {
            if (!seen.TryGetValue(image, out string? problem))
            {
                problem = FindProblem(volume, image, isTrusting: false, progress, cancellationToken);
                seen.Add(image, problem ?? "");
            }

            if (!string.IsNullOrEmpty(problem))
            {
                found.Add(new DataDamage(Images.PathOf(image), problem, dependents));
            }
        }
    }

    /// <summary>Checks what was found on the disk of a volume before a guest has it: once, since nobody else writes there.</summary>
    /// <exception cref="DataDamageException">It is damaged.</exception>
    private void RequireSound(StoredVolume volume, CancellationToken cancellationToken)
    {
        foreach (string image in Images.ChainOf(volume.Record.Top!))
        {
            if (!Images.IsUnchecked(image))
            {
                continue;
            }

            if (FindProblem(volume, image, isTrusting: true, progress: null, cancellationToken) is { } problem)
            {
                string path = Images.PathOf(image);
                throw new DataDamageException(path, DependentsOf(volume), $"The {volume.Title} cannot be used: '{path}' {problem}");
            }

            Images.NoteChecked(image);
        }
    }

    private string? FindProblem(StoredVolume volume, string image, bool isTrusting, IProgress<SnapshotProgress>? progress, CancellationToken cancellationToken)
    {
        try
        {
            if (volume.Record.Images.FirstOrDefault(expected => string.Equals(expected.Name, image, StringComparison.Ordinal)) is { } expected)
            {
                return _checksums.Value.Compute(image, isTrusting, progress, cancellationToken) == expected
                    ? null
                    : "is not as it was written. Put a sound copy of it there, or delete what needs it.";
            }

            if (image.EndsWith(ImageDirectory.RawSuffix, StringComparison.Ordinal))
            {
                return null;
            }

            using ImageFile? file = Images.TryOpenClosed(image);
            if (file is not null)
            {
                // A clone may be larger than what it is based on.
                bool isTop = string.Equals(image, volume.Record.Top, StringComparison.Ordinal);
                Qcow2Check.Verify(file, isTop ? volume.Record.Size : Qcow2Header.Read(file).Size, cancellationToken);
            }

            return null;
        }
        catch (Exception error) when (error is DiskImageException or BlockDeviceException)
        {
            return error.Message;
        }
    }
}
