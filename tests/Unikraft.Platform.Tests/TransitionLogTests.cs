using System.Runtime.CompilerServices;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.Instances;

namespace Unikraft.Platform.Tests;

public sealed class TransitionLogTests
{
    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(7)]
    [InlineData(100_000)]
    public async Task A_reader_reads_everything_however_far_behind_it_is(int behind)
    {
        TransitionLog log = new();
        Append(log, -5, 5);
        await using IAsyncEnumerator<InstanceTransition> reader = log.ReadAsync(CancellationToken.None).GetAsyncEnumerator();
        Append(log, 0, behind);
        log.Complete();

        for (int i = 0; i < behind; i++)
        {
            Assert.True(await reader.MoveNextAsync());
            Assert.Equal(i, reader.Current.Number);
        }

        Assert.False(await reader.MoveNextAsync().Guarded());
    }

    [Fact]
    public async Task A_stream_is_read_again_from_the_moment_it_was_asked_for()
    {
        TransitionLog log = new();
        Append(log, 0, 3);
        IAsyncEnumerable<InstanceTransition> reading = log.ReadAsync(CancellationToken.None);
        Append(log, 3, 4);
        log.Complete();

        long[] expected = [3, 4, 5, 6];
        for (int i = 0; i < 2; i++)
        {
            Assert.Equal(expected, await NumbersAsync(reading).Guarded());
        }
    }

    [Fact]
    public async Task What_was_read_and_what_nobody_reads_is_not_kept()
    {
        TransitionLog log = new();
        await using IAsyncEnumerator<InstanceTransition> reader = Read(log);
        ReadAndForget(log);
        WeakReference[] appended = AppendAndForget(log, 100);
        Collect();
        // All of it is still to be read.
        Assert.All(appended, transition => Assert.True(transition.IsAlive));

        for (int i = 0; i < appended.Length; i++)
        {
            Assert.True(await reader.MoveNextAsync().Guarded());
        }

        Append(log, appended.Length, 1);
        Assert.True(await reader.MoveNextAsync().Guarded());
        Collect();
        Assert.All(appended, transition => Assert.False(transition.IsAlive));
    }

    [Fact]
    public async Task What_is_left_is_read_after_the_end()
    {
        TransitionLog log = new();
        IAsyncEnumerable<InstanceTransition> reading = log.ReadAsync(CancellationToken.None);
        await using IAsyncEnumerator<InstanceTransition> reader = reading.GetAsyncEnumerator();
        Append(log, 0, 1);
        log.Complete();
        Assert.True(await reader.MoveNextAsync().Guarded());
        Assert.False(await reader.MoveNextAsync().Guarded());
        await using IAsyncEnumerator<InstanceTransition> late = log.ReadAsync(CancellationToken.None).GetAsyncEnumerator();
        Assert.False(await late.MoveNextAsync().Guarded());
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Reading_ends_with_either_token_and_leaves_other_readers_alone(bool ofTheReading)
    {
        TransitionLog log = new();
        using CancellationTokenSource cancellation = new();
        await using IAsyncEnumerator<InstanceTransition> other = log.ReadAsync(CancellationToken.None).GetAsyncEnumerator();
        await using IAsyncEnumerator<InstanceTransition> reader = log
            .ReadAsync(ofTheReading ? cancellation.Token : CancellationToken.None)
            .GetAsyncEnumerator(ofTheReading ? CancellationToken.None : cancellation.Token);
        ValueTask<bool> waiting = reader.MoveNextAsync();
        Task<bool> otherWaiting = other.MoveNextAsync().AsTask();

        await cancellation.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => waiting.Guarded());
        Append(log, 0, 1);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => reader.MoveNextAsync().Guarded());
        Assert.True(await otherWaiting.Guarded());
    }

    [Fact]
    public async Task Waiting_readers_read_beside_a_writer()
    {
        const int Count = 5000;
        TransitionLog log = new();
        Task<long[]>[] readers = [.. Enumerable.Range(0, 3).Select(_ =>
        {
            IAsyncEnumerable<InstanceTransition> reading = log.ReadAsync(CancellationToken.None);
            return Task.Run(() => NumbersAsync(reading));
        })];

        await Task.Run(() => Append(log, 0, Count)).Guarded();
        log.Complete();

        foreach (Task<long[]> reader in readers)
        {
            Assert.Equal(Enumerable.Range(0, Count).Select(number => (long)number), await reader.Guarded());
        }
    }

    private static async Task<long[]> NumbersAsync(IAsyncEnumerable<InstanceTransition> reading)
    {
        List<long> numbers = [];
        await foreach (InstanceTransition transition in reading)
        {
            numbers.Add(transition.Number);
        }

        return [.. numbers];
    }

    // In methods of their own, which leave nothing on the stack.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static WeakReference[] AppendAndForget(TransitionLog log, int count)
    {
        WeakReference[] appended = new WeakReference[count];
        for (int i = 0; i < count; i++)
        {
            InstanceTransition transition = Transition(i);
            appended[i] = new WeakReference(transition);
            log.Append(transition);
        }

        return appended;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static IAsyncEnumerator<InstanceTransition> Read(TransitionLog log) => log.ReadAsync(CancellationToken.None).GetAsyncEnumerator();

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void ReadAndForget(TransitionLog log) => _ = Read(log);

    private static void Collect()
    {
        for (int i = 0; i < 2; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
    }

    private static void Append(TransitionLog log, int from, int count)
    {
        for (int i = 0; i < count; i++)
        {
            log.Append(Transition(from + i));
        }
    }

    private static InstanceTransition Transition(int number) =>
        new(number, default, default, "it", From: null, InstanceState.Stopped, StopReason: null);
}
