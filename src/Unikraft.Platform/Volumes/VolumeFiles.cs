using Microsoft.Extensions.Logging;
using Unikraft.Platform.Storage;

namespace Unikraft.Platform.Volumes;

/// <summary>What is on the disk of the volumes: images, the journal, and what that said when it was opened.</summary>
internal sealed record VolumeFiles(ImageDirectory Images, VolumeJournal Journal, IReadOnlyDictionary<Guid, VolumeRecord> Records) : IDisposable
{
    /// <summary>Opens a directory.</summary>
    /// <param name="path">The directory; <see langword="null"/> for one that is deleted in the end.</param>
    /// <param name="areInstancesKept">Whether instances outlive the platform, and with them the volumes that they own.</param>
    /// <param name="logger">Where to log.</param>
    /// <param name="layer">The file system; that of the host when <see langword="null"/>.</param>
    /// <param name="journalOptions">How the journal is kept; as usual when <see langword="null"/>.</param>
    /// <exception cref="StorageException">It is open elsewhere or damaged, or the host refused.</exception>
    public static VolumeFiles Open(string? path, bool areInstancesKept, ILogger logger, IFileLayer? layer = null, VolumeJournalOptions? journalOptions = null)
    {
        ImageDirectory images = ImageDirectory.Open(path, logger, layer);
        try
        {
            // Snapshots in memory do not outlive the platform, so neither do the volume templates that they own.
            VolumeJournal journal = VolumeJournal.Open(
                images.Files,
                record => record.Owner is null || record.IsKept || (areInstancesKept && !record.IsTemplate),
                out Dictionary<Guid, VolumeRecord> records,
                journalOptions);
            return new VolumeFiles(images, journal, records);
        }
        catch
        {
            images.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        Journal.Dispose();
        Images.Dispose();
    }
}
