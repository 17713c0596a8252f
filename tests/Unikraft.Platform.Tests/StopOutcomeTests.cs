using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Instances;

namespace Unikraft.Platform.Tests;

public sealed class StopOutcomeTests
{
    private static readonly StopCode Clean = new(0x8200);
    private static readonly StopCode OutOfMemory = new(0x000C7F04);
    private static readonly GuestFault Fault = new(0, 14, 6, 1, 2, 3);

    public static TheoryData<string, string, string, string, string> Exits => new()
    {
        // How it ended; nobody, the platform, the user, both asked for it.
        { "exited", "---AK", "--PAK", "-UPAK", "-UPAK" },
        { "exit code only", "---A-", "--PA-", "-UPA-", "-UPA-" },
        { "stop code only", "----K", "--P-K", "-UP-K", "-UP-K" },
        { "vanished", "-----", "--P--", "-UP--", "-UP--" },
        { "crashed", "----K", "--P-K", "-UP-K", "-UP-K" },
        { "triple fault", "----K", "--P-K", "-UP-K", "-UP-K" },
        { "killed", "F-P--", "F-P--", "FUP--", "FUP--" },
        { "failed", "-----", "--P--", "-UP--", "-UP--" },
        { "no machine", "-----", "--P--", "-UP--", "-UP--" },
    };

    [Theory]
    [MemberData(nameof(Exits))]
    public void A_stop_reason_is_composed_of_who_asked_and_how_it_ended(string exit, string nobody, string platform, string user, string both)
    {
        (StopInitiator Initiator, string Mask)[] expected =
        [
            (StopInitiator.None, nobody),
            (StopInitiator.Platform, platform),
            (StopInitiator.User, user),
            (StopInitiator.User | StopInitiator.Platform, both),
        ];
        foreach ((StopInitiator initiator, string mask) in expected)
        {
            Assert.Equal(mask, StopOutcome.Compose(initiator, forced: false, Exit(exit)).Reason.ToMask());

            // That a forced stop was asked for counts only where there is no machine to tell how it ended.
            bool forceCounts = string.Equals(exit, "no machine", StringComparison.Ordinal);
            Assert.Equal(forceCounts ? "F" + mask[1..] : mask, StopOutcome.Compose(initiator, forced: true, Exit(exit)).Reason.ToMask());
        }
    }

    [Theory]
    [MemberData(nameof(Exits))]
    public void Codes_are_there_exactly_when_their_bits_are(string exit, string nobody, string platform, string user, string both)
    {
        StopOutcome outcome = StopOutcome.Compose(StopInitiator.None, forced: false, Exit(exit));

        Assert.Equal(nobody.Contains('A', StringComparison.Ordinal), outcome.ExitCode is not null);
        Assert.Equal(nobody.Contains('K', StringComparison.Ordinal), outcome.StopCode is not null);
        Assert.Equal(string.Equals(exit, "crashed", StringComparison.Ordinal), outcome.Fault is not null);
        Assert.All([platform, user, both], mask => Assert.Equal(nobody[3..], mask[3..]));
    }

    [Theory]
    [InlineData("exited", false)]
    [InlineData("exit code only", false)]
    [InlineData("stop code only", true)]
    [InlineData("vanished", false)]
    [InlineData("crashed", true)]
    [InlineData("triple fault", true)]
    [InlineData("killed", false)]
    [InlineData("failed", false)]
    public void A_crash_is_a_kernel_without_an_app_or_a_stop_code_that_is_not_clean(string exit, bool isCrash)
    {
        StopOutcome outcome = StopOutcome.Compose(StopInitiator.None, forced: false, Exit(exit));

        Assert.Equal(isCrash, outcome.IsCrash);
        Assert.False(RestartBackoff.Wants(RestartPolicy.Never, outcome));
        Assert.True(RestartBackoff.Wants(RestartPolicy.Always, outcome));
        Assert.Equal(isCrash, RestartBackoff.Wants(RestartPolicy.OnFailure, outcome));
    }

    [Fact]
    public void An_app_that_exits_and_a_kernel_that_then_fails_is_a_crash() =>
        Assert.True(StopOutcome.Compose(StopInitiator.None, forced: false, new MachineExit.PoweredOff(0, OutOfMemory)).IsCrash);

    private static MachineExit? Exit(string kind) => kind switch
    {
        "exited" => new MachineExit.PoweredOff(3, Clean),
        "exit code only" => new MachineExit.PoweredOff(3, null),
        "stop code only" => new MachineExit.PoweredOff(null, Clean),
        "vanished" => new MachineExit.PoweredOff(null, null),
        "crashed" => new MachineExit.Crashed(OutOfMemory, Fault),
        "triple fault" => new MachineExit.TripleFault(OutOfMemory),
        "killed" => new MachineExit.Killed(),
        "failed" => new MachineExit.Failed(new InvalidOperationException()),
        _ => null,
    };
}
