using System.Text;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Devices;

public sealed class GenerationPortTests
{
    private const ulong Data = 0;
    private const ulong InterruptEnable = 1;
    private const ulong LineStatus = 5;

    private static readonly byte[] Id = [.. Enumerable.Range(0, 16).Select(static i => (byte)(i * 17))];

    private readonly FakeLine _line = new();
    private readonly GenerationPort _port;

    public GenerationPortTests() => _port = new GenerationPort(_line, Id);

    [Fact]
    public void A_question_is_answered_with_the_generation_id_and_bytes_that_nobody_else_gets()
    {
        Assert.Empty(ReadAll(_port));
        Write(InterruptEnable, 1);
        string first = Ask();
        Assert.True(_port.Port.Save().Received.IsEmpty);
        Assert.Matches("^\n00112233445566778899aabbccddeeff [0-9a-f]{64}\n$", first);
        string second = Ask();
        Assert.NotEqual(first, second);
        Assert.Equal(first[..34], second[..34]);
        Assert.Equal(2, _line.RisingEdges);

        string Ask()
        {
            Write(Data, (byte)'?');
            Assert.True(_line.IsHigh);
            string line = ReadAll(_port);
            Assert.False(_line.IsHigh);
            return line;
        }
    }

    [Fact]
    public void Other_bytes_are_no_questions()
    {
        foreach (byte one in "hello\n"u8)
        {
            Write(Data, one);
        }

        Assert.Empty(ReadAll(_port));
    }

    [Fact]
    public void A_clone_is_told_of_its_own_id_behind_what_its_original_had_not_read()
    {
        Write(Data, (byte)'?');
        Assert.NotEqual(0, Read(_port, LineStatus) & 1);
        byte[] left = _port.Port.Save().Received.ToArray();
        Assert.Equal(16, left.Length);

        GenerationPort clone = new(_line, new byte[16]);
        clone.Port.Restore(_port.Port.Save());
        clone.Tell();
        string[] lines = ReadAll(clone).Split('\n');
        Assert.Equal(4, lines.Length);
        Assert.Equal(Encoding.ASCII.GetString(left), $"\n{lines[1]}");
        Assert.Matches("^0{32} [0-9a-f]{64}$", lines[2]);
    }

    [Fact]
    public void A_guest_that_asks_without_end_and_reads_nothing_takes_no_more_memory()
    {
        for (int i = 0; i < 2_000; i++)
        {
            Write(Data, (byte)'?');
        }

        Assert.InRange(ReadAll(_port).Length, 1, ConsoleInput.Capacity + 16);
        Write(Data, (byte)'?');
        Assert.Matches("^\n[0-9a-f]{32} [0-9a-f]{64}\n$", ReadAll(_port));
    }

    private static string ReadAll(GenerationPort port)
    {
        StringBuilder text = new();
        while ((Read(port, LineStatus) & 1) != 0)
        {
            text.Append((char)Read(port, Data));
        }

        return text.ToString();
    }

    private static byte Read(GenerationPort port, ulong register)
    {
        byte[] value = new byte[1];
        port.Port.Read(new FakeMachine.Initiator(0), register, value);
        return value[0];
    }

    private void Write(ulong register, byte value) => _port.Port.Write(new FakeMachine.Initiator(0), register, [value]);
}
