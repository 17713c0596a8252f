using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using Microsoft.Extensions.Logging;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Snapshots;

namespace Unikraft.Platform.Kvm.Machines;

/// <summary>
/// Boots, snapshots and restores a guest of a few bytes, once in a process: what the JIT compiler has not seen yet would otherwise be compiled while
/// the first real guest stands still.
/// </summary>
internal static class Rehearsal
{
    private const int MemoryMb = 2;
    private const int Captures = 3;

    private static int _begun;

    /// <summary>Begins the rehearsal in the background, unless one was begun before.</summary>
    internal static void BeginOnce(KickSignal kickSignal, TimeProvider timeProvider, ILogger logger)
    {
        if (Interlocked.Exchange(ref _begun, 1) == 0)
        {
            _ = BackgroundWork.BeginDetached(() => RunAsync(kickSignal, timeProvider, logger));
        }
    }

    private static async Task RunAsync(KickSignal kickSignal, TimeProvider timeProvider, ILogger logger)
    {
        try
        {
            KvmHost host = new(kickSignal, timeProvider, logger, readyMachines: 0, TimeSpan.Zero);
            await using ConfiguredAsyncDisposable disposal = host.ConfigureAwait(false);
            Audience audience = new();
            MachineConfiguration configuration = new()
            {
                Uuid = Guid.CreateVersion7(timeProvider.GetUtcNow()),
                Name = "rehearsal",
                Image = GuestImage.FromBytes("rehearsal", BuildImage()),
                Vcpus = 1,
                MemoryMb = MemoryMb,
            };
            FlatMachine machine =
                await FlatMachine.BootAsync(host, configuration, audience, CancellationToken.None).ConfigureAwait(false);
            await using (machine.ConfigureAwait(false))
            {
                await machine.StartAsync().ConfigureAwait(false);
                for (int i = 0; i < Captures; i++)
                {
                    using KvmSnapshot snapshot = (KvmSnapshot)await machine.CaptureAsync().ConfigureAwait(false);
                    FlatMachine clone = await FlatMachine
                        .RestoreAsync(host, snapshot, configuration.Uuid, audience, [], CancellationToken.None)
                        .ConfigureAwait(false);
                    await using (clone.ConfigureAwait(false))
                    {
                        await clone.StartAsync().ConfigureAwait(false);
                    }
                }
            }
        }
        catch (PlatformException error)
        {
            Log.RehearsalFailed(logger, error);
        }
    }

    /// <summary>An ELF whose only segment calls the platform and then sleeps: it must not take a processor from anybody.</summary>
    private static byte[] BuildImage()
    {
        ReadOnlySpan<byte> code =
        [
            0xC7, 0x04, 0x25, 0x08, 0xE0, 0x0F, 0x00, 0x00, 0x00, 0x00, 0x00, // mov dword ptr [doorbell], 0: NOP
            0xC7, 0x04, 0x25, 0x00, 0xC0, 0x0F, 0x00, 0x07, 0x00, 0x00, 0x00, // mov dword ptr [op], WAIT
            0x48, 0xC7, 0x04, 0x25, 0x08, 0xC0, 0x0F, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, // mov qword ptr [deadline], never
            0xC7, 0x04, 0x25, 0x08, 0xE0, 0x0F, 0x00, 0x00, 0x00, 0x00, 0x00, // mov dword ptr [doorbell], 0
            0xEB, 0xF3, // jmp to the line before
        ];
        const int HeaderSize = 64;
        const int CodeOffset = 120;
        byte[] image = new byte[CodeOffset + code.Length];
        Span<byte> header = image;
        ReadOnlySpan<byte> identification = [0x7F, (byte)'E', (byte)'L', (byte)'F', 2, 1, 1];
        identification.CopyTo(header);
        BinaryPrimitives.WriteUInt16LittleEndian(header[16..], 2);
        BinaryPrimitives.WriteUInt16LittleEndian(header[18..], 62);
        BinaryPrimitives.WriteUInt32LittleEndian(header[20..], 1);
        BinaryPrimitives.WriteInt64LittleEndian(header[24..], ElfImage.LowestAddress);
        BinaryPrimitives.WriteInt64LittleEndian(header[32..], HeaderSize);
        BinaryPrimitives.WriteUInt16LittleEndian(header[52..], HeaderSize);
        BinaryPrimitives.WriteUInt16LittleEndian(header[54..], CodeOffset - HeaderSize);
        BinaryPrimitives.WriteUInt16LittleEndian(header[56..], 1);

        Span<byte> segment = header[HeaderSize..];
        BinaryPrimitives.WriteUInt32LittleEndian(segment, 1);
        BinaryPrimitives.WriteInt32LittleEndian(segment[4..], (int)(ElfSegmentAccess.Read | ElfSegmentAccess.Execute));
        BinaryPrimitives.WriteInt64LittleEndian(segment[8..], CodeOffset);
        BinaryPrimitives.WriteInt64LittleEndian(segment[16..], ElfImage.LowestAddress);
        BinaryPrimitives.WriteInt64LittleEndian(segment[32..], code.Length);
        BinaryPrimitives.WriteInt64LittleEndian(segment[40..], code.Length);
        code.CopyTo(header[CodeOffset..]);
        return image;
    }

    private sealed class Audience : IMachineMonitor
    {
        public void OnConsoleOutput(ReadOnlySpan<byte> output)
        {
        }

        public void OnMainReached()
        {
        }

        public void OnTemplateRequested()
        {
        }

        public void OnForkRequested()
        {
        }
    }
}
