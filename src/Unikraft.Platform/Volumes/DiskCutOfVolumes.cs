using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Volumes;

/// <summary>Cuts the volumes of a machine at the moment of a snapshot. Everything is prepared, so that nothing is allocated then.</summary>
internal sealed class DiskCutOfVolumes(VolumeDisk[] disks, PreparedOverlay[] overlays) : IDiskCut
{
    private readonly VolumeCut?[] _cuts = new VolumeCut?[disks.Length];
    private int _held;

    /// <summary>What each volume was; <see langword="null"/> where the cut was not made.</summary>
    internal IReadOnlyList<VolumeCut?> Cuts => _cuts;

    public async ValueTask HoldAsync(CancellationToken cancellationToken)
    {
        try
        {
            foreach (VolumeDisk disk in disks)
            {
                await disk.HoldAsync(cancellationToken).ConfigureAwait(false);
                _held++;
            }
        }
        catch
        {
            Release();
            throw;
        }
    }

    public void Cut()
    {
        for (int i = 0; i < disks.Length; i++)
        {
            _cuts[i] = disks[i].Cut(overlays[i]);
        }
    }

    public void Release()
    {
        while (_held > 0)
        {
            disks[--_held].Release();
        }
    }
}
