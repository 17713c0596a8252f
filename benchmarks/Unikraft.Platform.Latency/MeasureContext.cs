namespace Unikraft.Platform.Latency;

/// <summary>What a measure has to work with.</summary>
/// <param name="floor">The C program to compare with; <see langword="null"/> where it cannot be had.</param>
/// <param name="samples">The number of samples in each row; <see langword="null"/> for what each measure thinks right.</param>
/// <param name="isQuick">Whether few samples are enough: the run shows that it works, not how fast it is.</param>
internal sealed class MeasureContext(FloorProgram? floor, int? samples, bool isQuick)
{
    /// <summary>How many of the units that the floor prints make one of a measure in microseconds.</summary>
    internal const double NanosecondsPerMicrosecond = 1000;

    private const int Rounds = 10;
    private const int QuickRounds = 2;

    internal bool IsQuick => isQuick;

    /// <summary>The path of a guest that comes with the repository.</summary>
    internal static string Guest(string name) => Path.Combine(AppContext.BaseDirectory, "guests", $"{name}.elf");

    /// <summary>The number of samples in a row: what the caller asked for, or else what the measure proposes.</summary>
    /// <param name="regular">For a result.</param>
    /// <param name="quick">To show that it works.</param>
    internal int Samples(int regular, int quick) => samples ?? (isQuick ? quick : regular);

    /// <summary>Takes samples of the floor; none where it cannot be had.</summary>
    internal async Task<IReadOnlyList<double>> TakeFloorAsync(string[] arguments, CancellationToken cancellationToken) =>
        floor is null ? [] : await floor.RunAsync(arguments, cancellationToken);

    /// <summary>
    /// Takes samples of the library and of its floor in turn, and swaps their order each round, so that a machine which becomes slower or
    /// faster meanwhile does so for both.
    /// </summary>
    /// <param name="subject">Takes a number of samples of the library.</param>
    /// <param name="floorArguments">What to call the floor with, given the number of samples; <see langword="null"/> when there is no floor.</param>
    /// <param name="count">The number of samples.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <param name="floorUnits">How many of the floor's units make one of the measure's.</param>
    /// <param name="rounds">The number of rounds, at most one for each sample.</param>
    internal async Task<(IReadOnlyList<double> Subject, IReadOnlyList<double> Floor)> InterleaveAsync(
        Func<int, CancellationToken, Task<IReadOnlyList<double>>> subject,
        Func<int, string[]>? floorArguments,
        int count,
        CancellationToken cancellationToken,
        double floorUnits = NanosecondsPerMicrosecond,
        int rounds = Rounds)
    {
        List<double> ours = [];
        List<double> floors = [];
        rounds = Math.Min(count, isQuick ? QuickRounds : rounds);
        for (int round = 0; round < rounds; round++)
        {
            int inRound = count * (round + 1) / rounds - count * round / rounds;
            for (int turn = 0; turn < 2; turn++)
            {
                if ((round + turn) % 2 == 0)
                {
                    ours.AddRange(await subject(inRound, cancellationToken));
                }
                else if (floor is not null && floorArguments is not null)
                {
                    IReadOnlyList<double> printed = await floor.RunAsync(floorArguments(inRound), cancellationToken);
                    floors.AddRange(printed.Select(value => value / floorUnits));
                }
            }
        }

        return (ours, floors);
    }
}
