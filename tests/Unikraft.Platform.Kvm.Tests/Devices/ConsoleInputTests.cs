using System.Text;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Devices;

public sealed class ConsoleInputTests : IDisposable
{
    private const int Capacity = 64 << 10;

    private readonly FakeMachine _machine = new();

    private ConsoleInput Input => _machine.Input;

    public void Dispose() => _machine.Dispose();

    [Fact]
    public async Task Bytes_come_out_in_the_order_they_went_in()
    {
        Random random = new(3);
        byte[] sent = new byte[1 << 20];
        random.NextBytes(sent);
        List<byte> received = [];
        int position = 0;
        byte[] buffer = new byte[Capacity];
        while (received.Count < sent.Length)
        {
            int free = Capacity - (position - received.Count);
            if (free > 0 && position < sent.Length && random.Next(2) == 0)
            {
                int length = Math.Min(random.Next(1, 30_000), sent.Length - position);
                int taken = await Input.WriteAsync(sent.AsMemory(position, length), CancellationToken.None).Guarded();
                Assert.Equal(Math.Min(length, free), taken);
                position += taken;
            }
            else
            {
                int read = Input.Read(buffer.AsSpan(0, random.Next(1, 30_000)));
                received.AddRange(buffer[..read]);
            }

            Assert.Equal(position > received.Count, (_machine.Events & GuestEvents.ConsoleInput) != 0);
            Assert.Equal(sent[received.Count..position], Input.Save());
        }

        Assert.Equal(sent, received);
        Assert.Equal(0, Input.Read(buffer));
    }

    [Fact]
    public async Task A_full_queue_makes_writers_wait_until_the_guest_reads()
    {
        await FillAsync();
        Task<int>[] waiting = [.. Enumerable.Range(0, 3).Select(_ => Input.WriteAsync("abc"u8.ToArray(), CancellationToken.None).AsTask())];
        Assert.All(waiting, task => Assert.False(task.IsCompleted));

        // One byte of room: one writer gets it, the others go on waiting.
        Assert.Equal(1, Input.Read(new byte[1]));
        Task<int> first = await Task.WhenAny(waiting).Guarded();
        Assert.Equal(1, await first);
        Assert.Equal(Capacity, Input.Save().Length);

        Assert.Equal(100, Input.Read(new byte[100]));
        int[] taken = await Task.WhenAll(waiting).Guarded();
        Assert.Equal((1, 7), (taken.Min(), taken.Sum()));
        Assert.Equal("aabcabc", Encoding.ASCII.GetString(Input.Save()[^7..]));
    }

    [Fact]
    public async Task A_cancelled_writer_leaves_nothing_behind()
    {
        await FillAsync();
        using CancellationTokenSource source = new();
        Task<int> cancelled = Input.WriteAsync("abc"u8.ToArray(), source.Token).AsTask();
        Task<int> patient = Input.WriteAsync("xyz"u8.ToArray(), CancellationToken.None).AsTask();
        await source.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => cancelled.Guarded());
        Assert.Equal(10, Input.Read(new byte[10]));
        Assert.Equal(3, await patient.Guarded());
        Assert.Equal("\0xyz"u8, Input.Save().AsSpan(Capacity - 10 - 1));
    }

    [Fact]
    public async Task A_token_that_is_cancelled_already_takes_nothing()
    {
        await Assert.ThrowsAnyAsync<OperationCanceledException>(
            () => Input.WriteAsync("abc"u8.ToArray(), new CancellationToken(canceled: true)).Guarded());
        Assert.Empty(Input.Save());
    }

    [Fact]
    public async Task Closing_lets_all_writers_go_and_takes_no_more()
    {
        await FillAsync();
        Task<int>[] waiting = [.. Enumerable.Range(0, 3).Select(_ => Input.WriteAsync("abc"u8.ToArray(), CancellationToken.None).AsTask())];
        Input.Close();
        Input.Close();

        int[] taken = await Task.WhenAll(waiting).Guarded();
        Assert.All(taken, count => Assert.Equal(0, count));
        Assert.Equal(Capacity, Input.Read(new byte[2 * Capacity]));
        Assert.Equal(0, await Input.WriteAsync("abc"u8.ToArray(), CancellationToken.None).Guarded());
    }

    [Fact]
    public async Task What_is_saved_is_restored_with_its_event()
    {
        await Input.WriteAsync("0123456789"u8.ToArray(), CancellationToken.None);
        Assert.Equal(4, Input.Read(new byte[4]));
        byte[] saved = Input.Save();
        using FakeMachine other = new();
        other.Input.Restore(saved);

        Assert.Equal(GuestEvents.ConsoleInput, other.Events);
        byte[] read = new byte[100];
        Assert.Equal("456789"u8, read.AsSpan(0, other.Input.Read(read)));
        Assert.Equal(0u, other.Events);
        other.Input.Restore([]);
        Assert.Equal(0u, other.Events);
    }

    [Fact]
    public async Task A_line_that_is_read_before_the_guest_is_told_of_it_leaves_no_event()
    {
        _machine.BeforeFollowing = () => Assert.Equal(3, Input.Read(new byte[3]));

        Assert.Equal(3, await Input.WriteAsync("abc"u8.ToArray(), CancellationToken.None));

        Assert.Empty(Input.Save());
        Assert.Equal(0u, _machine.Events);
    }

    [Fact]
    public void A_line_that_is_written_while_the_last_one_is_read_keeps_its_event()
    {
        Input.Offer("abc"u8);
        _machine.BeforeFollowing = () => Input.Offer("def"u8);

        Assert.Equal(3, Input.Read(new byte[3]));

        Assert.Equal("def"u8, Input.Save());
        Assert.Equal(GuestEvents.ConsoleInput, _machine.Events);
    }

    [Fact]
    public async Task Nothing_is_taken_of_nothing() =>
        Assert.Equal(0, await Input.WriteAsync(ReadOnlyMemory<byte>.Empty, CancellationToken.None).Guarded());

    private async Task FillAsync() =>
        Assert.Equal(Capacity, await Input.WriteAsync(new byte[Capacity + 1], CancellationToken.None).Guarded());
}
