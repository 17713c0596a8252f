using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Machines;

/// <summary>The ready shells of one shape, blank or with the memory of one snapshot in place.</summary>
internal sealed class ShellShelf : IAsyncDisposable
{
    private readonly Lock _preparing = new();
    private readonly Action _unused;
    private bool _isClosed;

    /// <param name="shape">The shape.</param>
    /// <param name="memory">The snapshot; <see langword="null"/> for blank shells.</param>
    /// <param name="unused">Told when nobody else uses the snapshot any more.</param>
    internal ShellShelf(MachineShape shape, PageMap? memory, Action<ShellShelf> unused)
    {
        Shape = shape;
        _unused = () => unused(this);
        Memory = memory?.Watch(_unused);
    }

    internal MachineShape Shape { get; }

    internal PageMap? Memory { get; private set; }

    /// <summary>How many there should be.</summary>
    internal int Target { get; set; }

    internal Queue<MachineShell> Ready { get; } = [];

    internal bool IsFor(MachineShape shape, PageMap? memory) => Shape == shape && Memory?.Identity == memory?.Identity;

    /// <summary>Goes on with another form of the snapshot: what has been folded is in place sooner.</summary>
    internal void Renew(PageMap form)
    {
        // Whoever prepares a machine meanwhile takes milliseconds, for which nobody waits.
        if (!_preparing.TryEnter())
        {
            return;
        }

        try
        {
            if (Memory is { } map && !_isClosed && !map.IsSame(form))
            {
                Memory = form.Watch(_unused);
                map.Unwatch(_unused);
            }
        }
        finally
        {
            _preparing.Exit();
        }
    }

    /// <summary>Puts the snapshot into the memory of a shell, unless the shelf was closed.</summary>
    internal void Prepare(GuestMemory memory)
    {
        lock (_preparing)
        {
            if (Memory is { } map && !_isClosed)
            {
                memory.Prepare(map, FlatGuestLayout.InfoAddress);
            }
        }
    }

    /// <summary>Lets go of the snapshot. Nothing holds it when this returns, but the mappings of the shells.</summary>
    internal void Close()
    {
        lock (_preparing)
        {
            _isClosed = true;
            Memory?.Unwatch(_unused);
        }
    }

    public async ValueTask DisposeAsync()
    {
        while (Ready.TryDequeue(out MachineShell? shell))
        {
            await shell.DisposeAsync().ConfigureAwait(false);
        }
    }
}
