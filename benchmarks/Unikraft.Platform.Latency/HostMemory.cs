using System.Globalization;

namespace Unikraft.Platform.Latency;

/// <summary>The memory of the whole host, as the kernel accounts for it.</summary>
internal static class HostMemory
{
    private const string Source = "/proc/meminfo";

    /// <summary>
    /// Reads what the host could not drop: all but free pages, caches of files and slabs that shrink. The floor adds up the same figures. The kernel's own
    /// memory for VMs is in it, unlike in that of a process.
    /// </summary>
    internal static long ReadUsedBytes()
    {
        Dictionary<string, long> kibibytes = File.ReadLines(Source)
            .Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries))
            .ToDictionary(parts => parts[0].TrimEnd(':'), parts => long.Parse(parts[1], CultureInfo.InvariantCulture), StringComparer.Ordinal);
        long used = kibibytes["MemTotal"] - kibibytes["MemFree"] - kibibytes["Buffers"] - kibibytes["Cached"]
            + kibibytes["Shmem"] - kibibytes["SReclaimable"];
        return used << 10;
    }
}
