using System.Buffers.Binary;

namespace Unikraft.Platform.Storage.Tests.Fuzzing;

/// <summary>Changes inputs of a corpus: bits, bytes, numbers, ranges, lengths, and parts of other inputs.</summary>
internal sealed class Mutator(int seed, IReadOnlyList<byte[]> corpus)
{
    private static readonly long[] Interesting = [0, 1, -1, int.MaxValue, int.MinValue, long.MaxValue, long.MinValue, 1 << 20, 0x7F, 0xFF, 0xFFFF];

    private readonly Random _random = new(seed);

    internal byte[] Next()
    {
        byte[] input = [.. corpus[_random.Next(corpus.Count)]];
        for (int i = _random.Next(1, 5); i > 0; i--)
        {
            input = Mutate(input);
        }

        return input;
    }

    private byte[] Mutate(byte[] input)
    {
        if (input.Length == 0)
        {
            return [(byte)_random.Next(256)];
        }

        int position = _random.Next(input.Length);
        switch (_random.Next(8))
        {
            case 0:
                input[position] ^= (byte)(1 << _random.Next(8));
                return input;
            case 1:
                input[position] = (byte)_random.Next(256);
                return input;
            case 2 when input.Length >= 8:
                BinaryPrimitives.WriteInt64LittleEndian(input.AsSpan(_random.Next(input.Length - 7)), Interesting[_random.Next(Interesting.Length)]);
                return input;
            case 3 when input.Length >= 4:
                BinaryPrimitives.WriteInt32LittleEndian(input.AsSpan(_random.Next(input.Length - 3)), (int)Interesting[_random.Next(Interesting.Length)]);
                return input;
            case 4:
                return input[..position];
            case 5:
                int end = _random.Next(position, input.Length);
                return [.. input[..position], .. input[end..]];
            case 6:
                byte[] other = corpus[_random.Next(corpus.Count)];
                int from = _random.Next(other.Length + 1);
                return [.. input[..position], .. other[from..Math.Min(other.Length, from + 64)], .. input[position..]];
            default:
                int length = Math.Min(32, input.Length - position);
                int target = _random.Next(input.Length - length + 1);
                input.AsSpan(position, length).ToArray().CopyTo(input, target);
                return input;
        }
    }
}
