using Unikraft.Platform.Contracts;
using Unikraft.Platform.Instances;

namespace Unikraft.Platform.Tests;

public sealed class TransitionLogTests
{
    private const int Capacity = 20;

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(7)]
    [InlineData(8)]
    [InlineData(9)]
    [InlineData(Capacity)]
    public async Task A_reader_that_is_not_too_slow_reads_everything(int behind)
    {
        TransitionLog log = new(Capacity);
        // Wherever the ring begins.
        for (int start = 0; start < 2 * Capacity; start++)
        {
            IAsyncEnumerable<InstanceTransition> reading = log.ReadAsync(CancellationToken.None);
            await using IAsyncEnumerator<InstanceTransition> reader = reading.GetAsyncEnumerator();
            Append(log, start * 100, behind);
            for (int i = 0; i < behind; i++)
            {
                Assert.True(await reader.MoveNextAsync().Guarded());
                Assert.Equal((start * 100) + i, reader.Current.Number);
            }

            Append(log, -1, 1);
        }
    }

    [Fact]
    public async Task A_reader_that_is_too_slow_is_told_how_many_it_missed()
    {
        TransitionLog log = new(Capacity);
        await using IAsyncEnumerator<InstanceTransition> slow = log.ReadAsync(CancellationToken.None).GetAsyncEnumerator();
        Append(log, 0, 2);
        Assert.True(await slow.MoveNextAsync().Guarded());
        Append(log, 2, Capacity + 2);

        TransitionsMissedException error = await Assert.ThrowsAsync<TransitionsMissedException>(() => slow.MoveNextAsync().Guarded());

        Assert.Equal((3, PlatformErrorCode.TransitionsMissed), (error.Missed, error.Code));
        Assert.Equal("The reader fell behind: 3 transitions are no longer kept. Look up the present states and watch again", error.Message);
        // Others are not concerned.
        await using IAsyncEnumerator<InstanceTransition> other = log.ReadAsync(CancellationToken.None).GetAsyncEnumerator();
        Append(log, 99, 1);
        Assert.True(await other.MoveNextAsync().Guarded());
        Assert.Equal(99, other.Current.Number);
    }

    [Fact]
    public async Task What_is_left_is_read_after_the_end()
    {
        TransitionLog log = new(Capacity);
        IAsyncEnumerable<InstanceTransition> reading = log.ReadAsync(CancellationToken.None);
        await using IAsyncEnumerator<InstanceTransition> reader = reading.GetAsyncEnumerator();
        Append(log, 0, 1);
        log.Complete();
        Assert.True(await reader.MoveNextAsync().Guarded());
        Assert.False(await reader.MoveNextAsync().Guarded());
        await using IAsyncEnumerator<InstanceTransition> late = log.ReadAsync(CancellationToken.None).GetAsyncEnumerator();
        Assert.False(await late.MoveNextAsync().Guarded());
    }

    [Fact]
    public async Task Waiting_readers_read_beside_a_writer()
    {
        const int Count = 5000;
        TransitionLog log = new(Count);
        Task<long[]>[] readers = [.. Enumerable.Range(0, 3).Select(_ =>
        {
            IAsyncEnumerable<InstanceTransition> reading = log.ReadAsync(CancellationToken.None);
            return Task.Run(async () =>
            {
                List<long> numbers = [];
                await foreach (InstanceTransition transition in reading)
                {
                    numbers.Add(transition.Number);
                }

                return numbers.ToArray();
            });
        })];

        await Task.Run(() => Append(log, 0, Count)).Guarded();
        log.Complete();

        foreach (Task<long[]> reader in readers)
        {
            Assert.Equal(Enumerable.Range(0, Count).Select(number => (long)number), await reader.Guarded());
        }
    }

    private static void Append(TransitionLog log, int from, int count)
    {
        for (int i = 0; i < count; i++)
        {
            log.Append(new InstanceTransition(from + i, default, default, "it", From: null, InstanceState.Stopped, StopReason: null));
        }
    }
}
