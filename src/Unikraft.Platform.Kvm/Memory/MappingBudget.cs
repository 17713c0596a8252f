using System.Globalization;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>
/// Shares the mappings that the kernel allows a process (<c>vm.max_map_count</c>) among its guests, so that however many there are none of them
/// is refused one: the fewer are left, the fewer a new guest gets.
/// </summary>
internal sealed class MappingBudget(int limit)
{
    /// <summary>The kernel's default, should it not tell.</summary>
    private const int DefaultMaximum = 65_530;

    /// <summary>The part of what is left that one guest may take.</summary>
    private const int Share = 8;

    private readonly int _spareFrom = limit / 2;
    private int _left = limit;

    /// <summary>The budget of this process: half of its limit, for the host, threads, and the mappings that every guest needs come on top.</summary>
    internal static MappingBudget OfProcess { get; } = new(ReadMaximum() / 2);

    /// <summary>What nobody has taken.</summary>
    internal int Left => Volatile.Read(ref _left);

    /// <summary>Takes mappings.</summary>
    /// <param name="wanted">How many there is use for.</param>
    /// <returns>How many were taken, which may be none.</returns>
    internal int Take(int wanted)
    {
        int left = Volatile.Read(ref _left);
        while (true)
        {
            int taken = Math.Min(wanted, left / Share);
            int seen = Interlocked.CompareExchange(ref _left, left - taken, left);
            if (seen == left)
            {
                return taken;
            }

            left = seen;
        }
    }

    /// <summary>Takes one for something that can do without, which leaves half of the budget to those who cannot.</summary>
    internal bool TryTakeSpare()
    {
        if (Left <= _spareFrom)
        {
            return false;
        }

        Interlocked.Decrement(ref _left);
        return true;
    }

    /// <summary>Gives mappings back.</summary>
    internal void Return(int taken) => Interlocked.Add(ref _left, taken);

    private static int ReadMaximum()
    {
        try
        {
            return int.Parse(File.ReadAllText("/proc/sys/vm/max_map_count"), CultureInfo.InvariantCulture);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException or FormatException or OverflowException)
        {
            return DefaultMaximum;
        }
    }
}
