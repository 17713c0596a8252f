using System.Security.Cryptography;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Devices.Virtio;

/// <summary>A source of random bytes for a guest: virtio-rng. It keeps none in store, so clones never get the same ones from it.</summary>
/// <param name="memory">The guest's memory.</param>
/// <param name="interrupt">Sets the level of the interrupt line.</param>
internal sealed class VirtioEntropy(GuestMemory memory, Action<bool> interrupt) : VirtioDevice(memory, interrupt, queues: 1, polls: false)
{
    /// <summary>The most bytes that one request gets; the driver is told how many they are.</summary>
    private const int MaxBytes = 4096;

    protected override uint DeviceId => 4;

    protected override ulong Features => 0;

    protected override ReadOnlySpan<byte> Configuration => [];

    /// <summary>Whether a device could have been in a state.</summary>
    internal static bool CouldBe(VirtioDeviceState state) => IsPossible(state, features: 0);

    protected override ValueTask<int> HandleAsync(VirtqueueRequest request)
    {
        Span<byte> bytes = stackalloc byte[(int)Math.Min(MaxBytes, request.WritableLength)];
        RandomNumberGenerator.Fill(bytes);
        request.Write(0, bytes);
        bytes.Clear();
        return ValueTask.FromResult(bytes.Length);
    }
}
