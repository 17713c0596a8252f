using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Tests.Testing;

internal static class LayerWriting
{
    /// <summary>Stores the present content of some pages.</summary>
    internal static void Copy(this LayerWriter writer, GuestMemory memory, PageBitmap pages)
    {
        for (int from = 0; pages.NextRun(from, out int start, out int length); from = start + length)
        {
            writer.Store(start, memory.PageRun(start, length));
        }
    }
}
