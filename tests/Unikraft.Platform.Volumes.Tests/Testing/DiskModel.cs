using System.Globalization;
using Unikraft.Platform.Volumes.Qcow2;

namespace Unikraft.Platform.Volumes.Tests.Testing;

/// <summary>What an image should hold, and random requests that change both.</summary>
internal sealed class DiskModel(byte[] bytes, Random random)
{
    internal const int Block = 512;

    internal byte[] Bytes { get; private set; } = bytes;

    /// <summary>Does one random request.</summary>
    /// <returns>What it was, for the message of a failure.</returns>
    internal string Step(Qcow2Image image, int maxLength)
    {
        // Small requests, but now and then a large one; at the granularity of bytes, of blocks or of pages.
        int unit = random.Next(8) switch { 0 => 1, < 5 => Block, _ => 4096 };
        int length = random.Next(4) == 0 ? random.Next(1, maxLength) : random.Next(1, Math.Min(maxLength, 16384));
        int offset = random.Next(Bytes.Length) / unit * unit;
        length = Math.Min((length + unit - 1) / unit * unit, Bytes.Length - offset);
        switch (random.Next(100))
        {
            case < 35:
                byte[] data = new byte[length];
                random.NextBytes(data);
                image.Write(offset, data);
                data.CopyTo(Bytes, offset);
                return Text("write", offset, length);
            case < 70:
                byte[] buffer = new byte[length];
                image.Read(offset, buffer);
                AssertEqual(Bytes.AsSpan(offset, length), buffer, offset);
                return Text("read", offset, length);
            case < 82:
                image.Discard(offset, length);
                AdoptDiscarded(image, offset, length);
                return Text("discard", offset, length);
            case < 96:
                image.WriteZeroes(offset, length);
                Bytes.AsSpan(offset, length).Clear();
                return Text("zero", offset, length);
            default:
                image.Flush();
                return "flush";
        }
    }

    internal void AssertSame(Qcow2Image image)
    {
        byte[] all = new byte[Bytes.Length];
        image.Read(0, all);
        AssertEqual(Bytes, all, 0);
    }

    internal void Resize(Qcow2Image image, int size)
    {
        image.Resize(size);
        Bytes = [.. Bytes, .. new byte[size - Bytes.Length]];
    }

    internal static void AssertEqual(ReadOnlySpan<byte> expected, ReadOnlySpan<byte> actual, long offset)
    {
        int same = expected.CommonPrefixLength(actual);
        Assert.True(
            same == expected.Length,
            string.Create(CultureInfo.InvariantCulture, $"Byte {offset + same} is {(same < actual.Length ? actual[same] : -1)}."));
    }

    // A discarded block is as it was or zeroes; which of the two is nobody's business, as long as it stays that way.
    private void AdoptDiscarded(Qcow2Image image, int offset, int length)
    {
        byte[] now = new byte[length];
        image.Read(offset, now);
        for (int done = 0; done < length;)
        {
            int part = Math.Min(Block - (offset + done) % Block, length - done);
            ReadOnlySpan<byte> block = now.AsSpan(done, part);
            Assert.True(
                block.SequenceEqual(Bytes.AsSpan(offset + done, part)) || !block.ContainsAnyExcept((byte)0),
                string.Create(CultureInfo.InvariantCulture, $"The discarded block at {offset + done} is neither as it was nor zeroes."));
            block.CopyTo(Bytes.AsSpan(offset + done));
            done += part;
        }
    }

    private static string Text(string what, int offset, int length) => string.Create(CultureInfo.InvariantCulture, $"{what} {offset}+{length}");
}
