using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>What is done behind the callers' backs ends well, or is heard of.</summary>
public sealed class BackgroundTests
{
    private const int Failed = 2007;

    [Fact]
    public async Task What_cannot_be_given_back_is_logged_and_holds_up_nothing()
    {
        ListLoggerFactory loggers = new();
        await using Reclaimer reclaimer = new(loggers.CreateLogger("reclaimer"));
        int done = 0;
        for (int i = 0; i < 200; i++)
        {
            bool fails = i % 2 == 0;
            await reclaimer.TakeAsync(() =>
            {
                done++;
                return fails ? throw new InvalidOperationException("stuck") : ValueTask.CompletedTask;
            });
        }

        await reclaimer.FlushAsync().Guarded();
        Assert.Equal(200, done);
        Assert.Equal(100, loggers.Records.Count(record => record.Id.Id == Failed));
    }

    [Fact]
    public async Task What_comes_after_the_end_is_done_at_once()
    {
        ListLoggerFactory loggers = new();
        Reclaimer reclaimer = new(loggers.CreateLogger("reclaimer"));
        await reclaimer.DisposeAsync();
        bool isDone = false;
        await reclaimer.TakeAsync(() =>
        {
            isDone = true;
            return ValueTask.CompletedTask;
        });

        Assert.True(isDone);
    }

    [Fact]
    public async Task Work_has_nothing_of_the_caller_who_has_caused_it()
    {
        AsyncLocal<string?> ambient = new() { Value = "caller" };
        await using BackgroundWork background = new();
        string? seen = "nothing";
        await background.Begin(_ =>
        {
            seen = ambient.Value;
            return Task.CompletedTask;
        }).Guarded();

        Assert.Null(seen);
        Assert.Equal("caller", ambient.Value);
        Assert.False(ExecutionContext.IsFlowSuppressed());
    }

    [Fact]
    public async Task Work_that_begins_after_the_end_is_cancelled()
    {
        BackgroundWork background = new();
        await background.DisposeAsync();
        bool isCancelled = false;
        await background.Begin(token =>
        {
            isCancelled = token.IsCancellationRequested;
            return Task.CompletedTask;
        }).Guarded();

        Assert.True(isCancelled);
    }
}
