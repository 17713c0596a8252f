namespace Unikraft.Platform.Latency;

/// <summary>What a measure has to work with.</summary>
/// <param name="floor">The C program to compare with; <see langword="null"/> where it cannot be had.</param>
/// <param name="isQuick">Whether few samples are enough: the run shows that it works, not how fast it is.</param>
internal sealed class MeasureContext(FloorProgram? floor, bool isQuick)
{
    private const int Rounds = 10;
    private const int QuickRounds = 2;

    internal bool IsQuick => isQuick;

    /// <summary>The path of a guest that comes with the repository.</summary>
    internal static string Guest(string name) => Path.Combine(AppContext.BaseDirectory, "guests", $"{name}.elf");

    /// <summary>
    /// Takes samples of the library and of its floor in turn, and swaps their order each round, so that a machine which becomes slower or
    /// faster meanwhile does so for both.
    /// </summary>
    /// <param name="subject">Takes a number of samples of the library.</param>
    /// <param name="floorArguments">What to call the floor with, given the number of samples; <see langword="null"/> when there is no floor.</param>
    /// <param name="samples">The number of samples in a round.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal async Task<(IReadOnlyList<double> Subject, IReadOnlyList<double> Floor)> InterleaveAsync(
        Func<int, CancellationToken, Task<IReadOnlyList<double>>> subject,
        Func<int, string[]>? floorArguments,
        int samples,
        CancellationToken cancellationToken)
    {
        List<double> ours = [];
        List<double> floors = [];
        for (int round = 0; round < (isQuick ? QuickRounds : Rounds); round++)
        {
            for (int turn = 0; turn < 2; turn++)
            {
                if ((round + turn) % 2 == 0)
                {
                    ours.AddRange(await subject(samples, cancellationToken));
                }
                else if (floor is not null && floorArguments is not null)
                {
                    floors.AddRange(await floor.RunAsync(floorArguments(samples), cancellationToken));
                }
            }
        }

        return (ours, floors);
    }
}
