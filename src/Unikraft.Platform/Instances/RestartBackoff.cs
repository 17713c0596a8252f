namespace Unikraft.Platform.Instances;

/// <summary>When and after which delay an instance that stopped from within is started again.</summary>
internal static class RestartBackoff
{
    /// <summary>An instance that ran that long without problems has ended its restart sequence.</summary>
    public static readonly TimeSpan HealthyAfter = TimeSpan.FromSeconds(10);

    /// <summary>The delay before an attempt.</summary>
    /// <param name="attempt">Counts the restarts of a sequence, from 1.</param>
    public static TimeSpan Delay(int attempt) => attempt switch
    {
        <= 1 => TimeSpan.Zero,
        2 => TimeSpan.FromSeconds(5),
        3 => TimeSpan.FromSeconds(10),
        4 => TimeSpan.FromSeconds(20),
        5 => TimeSpan.FromSeconds(40),
        _ => TimeSpan.FromMinutes(5),
    };

    /// <summary>Whether a policy wants a restart after a stop that nobody asked for.</summary>
    public static bool Wants(RestartPolicy policy, StopOutcome outcome) => policy switch
    {
        RestartPolicy.Always => true,
        RestartPolicy.OnFailure => outcome.IsCrash,
        _ => false,
    };
}
