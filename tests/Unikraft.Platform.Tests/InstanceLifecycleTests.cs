using Unikraft.Platform.Instances;

namespace Unikraft.Platform.Tests;

public sealed class InstanceLifecycleTests
{
    [Fact]
    public void The_table_is_what_the_specification_says()
    {
        // Rows: states in the order of the enumeration. Columns: Start, MainReached, DrainRequested, StopRequested, Ended, ScaledToZero.
        string?[][] table =
        [
            ["starting", null, null, null, null, null],
            [null, "running", null, "stopping", "stopped", "standby"],
            [null, null, "draining", "stopping", "stopped", null],
            [null, null, null, "stopping", "stopped", null],
            [null, null, null, null, "stopped", "standby"],
            ["starting", null, null, "stopped", null, null],
        ];

        foreach (InstanceState state in Enum.GetValues<InstanceState>())
        {
            foreach (InstanceTrigger trigger in Enum.GetValues<InstanceTrigger>())
            {
                string? expected = table[(int)state][(int)trigger];
                Assert.Equal(expected, InstanceLifecycle.Next(state, trigger)?.ToText());
                Assert.Equal(expected is not null, InstanceLifecycle.Allows(state, trigger));
            }
        }
    }

    [Fact]
    public void The_operations_are_allowed_in_the_states_that_the_specification_says()
    {
        // Rows: states in the order of the enumeration. Columns: Start, Stop, Drain, Suspend, Clone, Connect.
        string[] table =
        [
            "+ + - - + -",
            "- + - - - +",
            "- + + + + +",
            "- + + - - -",
            "- + - - - -",
            "+ + - + + +",
        ];

        Assert.Equal(table, Enum.GetValues<InstanceState>().Select(state => string.Join(
            ' ',
            Enum.GetValues<InstanceOperation>().Select(operation => InstanceLifecycle.Allows(state, operation) ? "+" : "-"))));
        Assert.False(InstanceLifecycle.Allows(InstanceState.Running, (InstanceOperation)99));
    }

    [Fact]
    public void Every_way_leads_back_to_stopped()
    {
        foreach (InstanceState state in new[] { InstanceState.Starting, InstanceState.Running, InstanceState.Stopping })
        {
            Assert.Equal(InstanceState.Stopped, InstanceLifecycle.Next(state, InstanceTrigger.Ended));
        }
    }
}
