using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Instances;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Tests;

public sealed class StopEscalationTests
{
    private readonly ManualTimeProvider _time = new();
    private readonly StubbornMachine _machine = new();
    private readonly List<string> _escalated = [];

    [Fact]
    public void The_guest_is_asked_then_its_app_is_killed_then_the_machine()
    {
        using StopEscalation escalation = Escalation();
        escalation.Begin(TimeSpan.FromSeconds(5));
        Assert.Equal(["request"], _machine.Calls);

        _time.Advance(TimeSpan.FromSeconds(5) - TimeSpan.FromTicks(1));
        Assert.Equal(["request"], _machine.Calls);
        _time.Advance(TimeSpan.FromTicks(1));
        Assert.Equal(["request", "kill app"], _machine.Calls);

        _time.Advance(TimeSpan.FromSeconds(2) - TimeSpan.FromTicks(1));
        Assert.Equal(["request", "kill app"], _machine.Calls);
        _time.Advance(TimeSpan.FromTicks(1));
        Assert.Equal(["request", "kill app", "kill"], _machine.Calls);
        Assert.Equal(["app", "machine"], _escalated);
        Assert.Equal(0, _time.ArmedTimers);
    }

    [Fact]
    public void Without_a_grace_period_the_app_is_killed_at_once()
    {
        using StopEscalation escalation = Escalation();
        escalation.Begin(TimeSpan.Zero);

        Assert.Equal(["request", "kill app"], _machine.Calls);
        _time.Advance(TimeSpan.FromSeconds(2));
        Assert.Equal("kill", _machine.Calls[^1]);
    }

    [Fact]
    public void A_later_stop_can_shorten_the_grace_period_but_not_prolong_it()
    {
        using StopEscalation escalation = Escalation();
        escalation.Begin(Timeout.InfiniteTimeSpan);
        Assert.Equal(0, _time.ArmedTimers);
        escalation.Begin(TimeSpan.FromSeconds(60));
        _time.Advance(TimeSpan.FromSeconds(10));
        escalation.Begin(TimeSpan.FromSeconds(5));
        escalation.Begin(TimeSpan.FromSeconds(30));
        _time.Advance(TimeSpan.FromSeconds(5));

        Assert.Equal(1, _machine.Calls.Count(call => string.Equals(call, "kill app", StringComparison.Ordinal)));
        escalation.Begin(TimeSpan.Zero);
        Assert.Equal(1, _machine.Calls.Count(call => string.Equals(call, "kill app", StringComparison.Ordinal)));
    }

    [Fact]
    public void Nothing_follows_once_the_machine_has_ended()
    {
        StopEscalation escalation = Escalation();
        escalation.Begin(TimeSpan.FromSeconds(5));
        escalation.Dispose();

        Assert.Equal(0, _time.ArmedTimers);
        escalation.Begin(TimeSpan.Zero);
        Assert.DoesNotContain("kill app", _machine.Calls);
    }

    private StopEscalation Escalation() => new(_machine, _time, machine => _escalated.Add(machine ? "machine" : "app"));

    private sealed class StubbornMachine : IVirtualMachine
    {
        public List<string> Calls { get; } = [];

        public Task<MachineExit> Exited { get; } = new TaskCompletionSource<MachineExit>().Task;

        public bool HasReachedMain => true;

        public void RefuseRequest(GuestRequestRefusal refusal) => throw new NotSupportedException();

        public void CompleteFork(Guid child) => throw new NotSupportedException();

        public void RequestStop()
        {
            if (Calls.Count == 0)
            {
                Calls.Add("request");
            }
        }

        public void KillApp() => Calls.Add("kill app");

        public void Kill() => Calls.Add("kill");

        public ValueTask StartAsync(CancellationToken cancellationToken = default) => throw new NotSupportedException();

        public ValueTask PauseAsync(CancellationToken cancellationToken = default) => throw new NotSupportedException();

        public void Resume() => throw new NotSupportedException();

        public ValueTask<IMachineSnapshot> CaptureAsync(CaptureOptions options, CancellationToken cancellationToken = default) => throw new NotSupportedException();

        public ValueTask<int> WriteConsoleAsync(ReadOnlyMemory<byte> input, CancellationToken cancellationToken = default) =>
            throw new NotSupportedException();

        public TFeature? GetFeature<TFeature>()
            where TFeature : class => null;

        public ValueTask DisposeAsync() => ValueTask.CompletedTask;
    }
}
