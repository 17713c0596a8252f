using System.Text;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.Instances;

namespace Unikraft.Platform.Tests;

public sealed class InstanceLogTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(7)]
    [InlineData(4096)]
    [InlineData(10_000)]
    public void The_newest_bytes_are_kept_at_their_offsets(int piece)
    {
        const int Capacity = 9000;
        InstanceLog log = new(Capacity);
        byte[] all = new byte[50_000];
        for (int i = 0; i < all.Length; i++)
        {
            all[i] = (byte)(i * 31 % 251);
        }

        for (int written = 0; written < all.Length;)
        {
            int length = Math.Min(piece, all.Length - written);
            log.Append(all.AsSpan(written, length));
            written += length;
            if (written % (piece * 97) == 0 || written == all.Length)
            {
                AssertHolds(log, all, written, Capacity);
            }
        }
    }

    [Fact]
    public void A_piece_larger_than_the_log_leaves_its_end()
    {
        InstanceLog log = new(capacity: 10);
        log.Append("0123456789abcdef"u8);

        LogOutput output = log.Read(range: null);
        Assert.Equal(("6789abcdef", 6, 6, 16), (output.Text, output.Start, output.AvailableStart, output.AvailableEnd));
    }

    [Theory]
    [InlineData(0L, null, "cdefghij", 2)]
    [InlineData(3L, null, "defghij", 3)]
    [InlineData(3L, 2, "de", 3)]
    [InlineData(-3L, null, "hij", 7)]
    [InlineData(-3L, 1, "h", 7)]
    [InlineData(-100L, 2, "cd", 2)]
    [InlineData(10L, null, "", 10)]
    [InlineData(long.MaxValue, null, "", 10)]
    [InlineData(long.MinValue, 1, "c", 2)]
    [InlineData(4L, 0, "", 4)]
    [InlineData(0L, int.MaxValue, "cdefghij", 2)]
    public void Ranges_are_clamped_to_what_is_there(long offset, int? limit, string expected, long start)
    {
        InstanceLog log = new(capacity: 8);
        log.Append("abcdefghij"u8);

        LogOutput output = log.Read(new LogRange(offset, limit));

        Assert.Equal((expected, start, 2, 10), (output.Text, output.Start, output.AvailableStart, output.AvailableEnd));
    }

    [Fact]
    public void Appending_does_not_allocate_once_the_log_has_its_size()
    {
        InstanceLog log = new(capacity: 8192);
        byte[] line = Encoding.ASCII.GetBytes(new string('x', 100));
        for (int i = 0; i < 200; i++)
        {
            log.Append(line);
        }

        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 1000; i++)
        {
            log.Append(line);
        }

        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
    }

    [Fact]
    public async Task Readers_wait_for_more_until_the_log_is_complete()
    {
        InstanceLog log = new(capacity: 100);
        ValueTask<bool> first = log.WaitAsync(0, CancellationToken.None);
        Assert.False(first.IsCompleted);
        log.Append("x"u8);
        Assert.True(await first.Guarded());
        Assert.True(await log.WaitAsync(0, CancellationToken.None).Guarded());

        ValueTask<bool> second = log.WaitAsync(1, CancellationToken.None);
        using CancellationTokenSource cancellation = new();
        ValueTask<bool> third = log.WaitAsync(1, cancellation.Token);
        await cancellation.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => third.Guarded());
        log.Complete();

        Assert.False(await second.Guarded());
        Assert.False(await log.WaitAsync(1, CancellationToken.None).Guarded());
        Assert.True(await log.WaitAsync(0, CancellationToken.None).Guarded());
    }

    [Fact]
    public async Task What_is_read_beside_a_writer_is_connected_and_ends_where_it_says()
    {
        // Byte n of the log is n modulo 251, so every piece shows by itself whether it is where it claims to be.
        InstanceLog log = new(capacity: 20_000);
        const int Total = 5_000_000;
        Task writer = Task.Run(() =>
        {
            byte[] piece = new byte[997];
            for (int written = 0; written < Total; written += piece.Length)
            {
                for (int i = 0; i < piece.Length; i++)
                {
                    piece[i] = (byte)((written + i) % 251);
                }

                log.Append(piece);
            }

            log.Complete();
        });

        while (!writer.IsCompleted)
        {
            LogOutput output = log.Read(range: null);
            Assert.True(output.Start >= output.AvailableStart);
            Assert.Equal(output.AvailableEnd, output.Start + output.Output.Length);
            for (int i = 0; i < output.Output.Length; i++)
            {
                if (output.Output.Span[i] != (output.Start + i) % 251)
                {
                    Assert.Fail($"The byte at {output.Start + i} is wrong.");
                }
            }
        }

        await writer.Guarded();
    }

    private static void AssertHolds(InstanceLog log, byte[] all, int written, int capacity)
    {
        LogOutput output = log.Read(range: null);
        int start = Math.Max(0, written - capacity);
        Assert.Equal((start, start, written), (output.Start, output.AvailableStart, output.AvailableEnd));
        Assert.True(all.AsSpan(start, written - start).SequenceEqual(output.Output.Span));
    }
}
