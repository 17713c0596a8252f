using System.Buffers.Binary;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Devices.Virtio;

/// <summary>A virtio 1.x device behind the registers of virtio-mmio, version 2.</summary>
/// <remarks>
/// <para>
/// Requests are done on the thread pool, a bounded number at a time before others get their turn. Where the driver polls, the vCPU that announces
/// requests or is about to sleep does some itself: to wait for another thread takes longer. A driver that does what cannot be answered stops its
/// device, which then says so, and nothing else.
/// </para>
/// <para>
/// Whatever a driver does, its device looks whether it is to stop after each request, and a request is bounded: <see cref="Virtqueue.MaxSegments"/> descriptors are read, each
/// once, and then as many bytes are moved, or as many ranges changed, as the kind of device allows. A turn on a thread of the pool is one look at as many requests as the queue
/// has places, and what comes in while it polls, of which there is a bound as well.
/// </para>
/// <para>Must be disposed of before the guest memory is.</para>
/// </remarks>
internal abstract class VirtioDevice : IMmioDevice, IThreadPoolWorkItem, IAsyncDisposable
{
    /// <summary>The length of its registers in guest physical memory.</summary>
    internal const ulong WindowLength = 0x200;

    private const uint Magic = 0x7472_6976;
    private const uint Version = 2;
    private const uint Vendor = 0x4b55_4e55;
    private const int ConfigurationOffset = 0x100;

    private const ulong Version1 = 1UL << 32;
    private const ulong IndirectDescriptors = 1UL << 28;

    /// <summary>The bits of the status that are the driver's.</summary>
    private const uint DriverBits = 0x8f;

    /// <summary>The most requests that a vCPU does in a row, which cannot be paused meanwhile.</summary>
    private const int MaxServed = 16;

    private const uint UsedBuffer = 1;
    private const uint ConfigurationChange = 2;

    private readonly Lock _lock = new();
    private readonly GuestMemory _memory;
    private readonly Action<bool> _interrupt;
    private readonly VirtqueueSettings[] _settings;
    private readonly Virtqueue?[] _queues;
    private readonly bool _polls;
    private readonly bool _servesCaller;

    /// <summary>Held by who takes requests.</summary>
    private readonly Lock _taking = new();
    private uint _status;
    private ulong _driverFeatures;
    private uint _deviceFeaturesSelector;
    private uint _driverFeaturesSelector;
    private uint _queueSelector;
    private uint _interruptStatus;
    private int _active;
    private bool _isPumping;
    private bool _isNotified;
    private bool _isResetting;
    private bool _isDisposed;
    private TaskCompletionSource? _held;
    private TaskCompletionSource _quiet = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Makes a device that a driver has not touched yet.</summary>
    /// <param name="memory">The guest's memory.</param>
    /// <param name="interrupt">Sets the level of the interrupt line. Called on any thread; must not block. Polled guests have none.</param>
    /// <param name="queues">How many queues it has.</param>
    /// <param name="polls">Whether the driver polls: then vCPUs do requests themselves, and further ones are looked for for a moment when there are none.</param>
    protected VirtioDevice(GuestMemory memory, Action<bool>? interrupt, int queues, bool polls)
    {
        _servesCaller = polls;

        // On one processor the guest would wait for whoever looks.
        _polls = polls && Environment.ProcessorCount > 1;
        _memory = memory;
        _interrupt = interrupt ?? (static _ => { });
        _queues = new Virtqueue?[queues];
        _settings = new VirtqueueSettings[queues];
        Array.Fill(_settings, new VirtqueueSettings());
    }

    [Flags]
    private enum DeviceStatus : uint
    {
        DriverOk = 4,
        FeaturesOk = 8,
        NeedsReset = 64,
    }

    /// <summary>Lets the device have a turn, on a thread of the pool. Tests give it one of theirs.</summary>
    internal Action<IThreadPoolWorkItem> Schedule { get; init; } = static turn => ThreadPool.UnsafeQueueUserWorkItem(turn, preferLocal: false);

    /// <summary>The virtio device id.</summary>
    protected abstract uint DeviceId { get; }

    /// <summary>The features of this kind of device.</summary>
    protected abstract ulong Features { get; }

    /// <summary>The features that the driver has accepted. They stay as they are while there are requests.</summary>
    protected ulong NegotiatedFeatures => _driverFeatures;

    /// <summary>The configuration as the driver reads it.</summary>
    protected abstract ReadOnlySpan<byte> Configuration { get; }

    private ulong AllFeatures => Features | Version1 | IndirectDescriptors;

    private bool CanRun => _held is null && !_isResetting && !_isDisposed
        && (_status & (uint)DeviceStatus.DriverOk) != 0 && (_status & (uint)DeviceStatus.NeedsReset) == 0;

    public async ValueTask DisposeAsync()
    {
        Task quiet;
        lock (_lock)
        {
            _isDisposed = true;
            quiet = WhenQuiet();
        }

        await quiet.ConfigureAwait(false);
    }

    public void Read(IMmioInitiator initiator, ulong offset, Span<byte> data)
    {
        data.Clear();
        if (offset >= ConfigurationOffset)
        {
            ulong position = offset - ConfigurationOffset;
            if (position < (ulong)Configuration.Length)
            {
                ReadOnlySpan<byte> rest = Configuration[(int)position..];
                rest[..Math.Min(rest.Length, data.Length)].CopyTo(data);
            }
        }
        else if (data.Length == sizeof(uint) && offset % sizeof(uint) == 0)
        {
            lock (_lock)
            {
                BinaryPrimitives.WriteUInt32LittleEndian(data, ReadRegister((Register)offset));
            }
        }
    }

    public void Write(IMmioInitiator initiator, ulong offset, ReadOnlySpan<byte> data)
    {
        // Nothing of the configuration can be written.
        if (offset < ConfigurationOffset && data.Length == sizeof(uint) && offset % sizeof(uint) == 0)
        {
            lock (_lock)
            {
                WriteRegister((Register)offset, BinaryPrimitives.ReadUInt32LittleEndian(data));
            }

            if (_servesCaller && (Register)offset == Register.QueueNotify)
            {
                Serve();
            }
        }
    }

    /// <summary>Does some of what the driver has asked for, on the thread that calls, unless another one is at it. The rest is left to the thread pool.</summary>
    internal void Serve()
    {
        lock (_lock)
        {
            // What is slow, a flush for example, may be what others would wait for.
            bool isSlow = _active > (_isPumping ? 1 : 0);
            if (!CanRun || isSlow || !_taking.TryEnter())
            {
                return;
            }

            _active++;
        }

        try
        {
            foreach (Virtqueue? queue in _queues)
            {
                _ = queue is not null && Pump(queue, Math.Min(MaxServed, queue.Size));
            }
        }
        finally
        {
            _taking.Exit();
            lock (_lock)
            {
                End();
            }
        }
    }

    /// <summary>Does what drivers have asked for. Called by the thread pool.</summary>
    public void Execute()
    {
        bool hasMore = PumpAll() || (_polls && Poll());
        bool isNext;
        lock (_lock)
        {
            isNext = (hasMore || _isNotified) && CanRun;
            if (isNext)
            {
                _isNotified = false;
            }
            else
            {
                _isPumping = false;
                End();
            }
        }

        // Not in a loop: a driver that never stops asking must not keep a thread for itself.
        if (isNext)
        {
            Schedule(this);
        }
    }

    /// <summary>Holds new requests back and waits for those under way. Then the device touches guest memory no more.</summary>
    /// <param name="cancellationToken">Cancels the waiting; requests go on then.</param>
    /// <exception cref="InvalidOperationException">They are held back already.</exception>
    internal async Task HoldAsync(CancellationToken cancellationToken = default)
    {
        Task quiet;
        lock (_lock)
        {
            if (_held is not null)
            {
                throw new InvalidOperationException("The requests are held back already.");
            }

            _held = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            quiet = WhenQuiet();
        }

        try
        {
            await quiet.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            Release();
            throw;
        }
    }

    /// <summary>Completes when all has been done that the driver has asked for until now.</summary>
    internal Task WhenQuietAsync()
    {
        lock (_lock)
        {
            return WhenQuiet();
        }
    }

    /// <summary>Lets requests go on.</summary>
    internal void Release()
    {
        lock (_lock)
        {
            _ = _held?.TrySetResult();
            _held = null;

            // What was asked for meanwhile was not heard.
            Notify();
        }
    }

    /// <summary>What a snapshot keeps. Requests are held back.</summary>
    internal VirtioDeviceState Save()
    {
        VirtioDeviceCut cut = NewCut();
        Save(cut);
        return cut.ToState();
    }

    /// <summary>Makes room for a state.</summary>
    internal VirtioDeviceCut NewCut() => new(_queues.Length);

    /// <summary>Takes the state, while requests are held back. Allocates nothing.</summary>
    internal void Save(VirtioDeviceCut cut)
    {
        lock (_lock)
        {
            if (_held is null || _active != 0)
            {
                throw new InvalidOperationException("The state of a device is taken while its requests are held back.");
            }

            cut.Status = _status;
            cut.DriverFeatures = _driverFeatures;
            cut.DeviceFeaturesSelector = _deviceFeaturesSelector;
            cut.DriverFeaturesSelector = _driverFeaturesSelector;
            cut.QueueSelector = _queueSelector;
            cut.InterruptStatus = _interruptStatus;
            for (int i = 0; i < _queues.Length; i++)
            {
                cut.Take(i, _settings[i], _queues[i]);
            }
        }
    }

    /// <summary>Makes a new device what another one was, over a copy of its guest's memory. Looks for requests at once, unless they are held back.</summary>
    /// <exception cref="ArgumentException">The state is not one of such a device, or does not fit the memory.</exception>
    internal void Restore(VirtioDeviceState state)
    {
        lock (_lock)
        {
            if (state.Queues.Count != _queues.Length || (state.DriverFeatures & ~AllFeatures) != 0)
            {
                throw new ArgumentException("The state is that of another device.", nameof(state));
            }

            for (int queue = 0; queue < _queues.Length; queue++)
            {
                VirtioDeviceState.QueueState saved = state.Queues[queue];
                _settings[queue] = saved.Settings;
                if (saved.IsReady)
                {
                    _queues[queue] = Virtqueue.TryCreate(_memory, saved.Settings, saved.NextAvailable, saved.NextUsed)
                        ?? throw new ArgumentException("The state has a queue outside guest memory.", nameof(state));
                }
            }

            _driverFeatures = state.DriverFeatures;
            _deviceFeaturesSelector = state.DeviceFeaturesSelector;
            _driverFeaturesSelector = state.DriverFeaturesSelector;
            _queueSelector = state.QueueSelector;
            _status = state.Status & (DriverBits | (uint)DeviceStatus.NeedsReset);
            SetInterrupt(state.InterruptStatus);
            Notify();
        }
    }

    /// <summary>Does a request. Completes when all that is written to it has been written.</summary>
    /// <returns>How many bytes were written to it.</returns>
    /// <exception cref="InvalidDataException">It cannot even be answered.</exception>
    protected abstract ValueTask<int> HandleAsync(VirtqueueRequest request);

    /// <summary>Whether the device has room for another request now. When it has not, it is asked again after the next request that ends.</summary>
    protected virtual bool HasRoom => true;

    /// <summary>Whether a device with certain features of its own could have been in a state.</summary>
    protected static bool IsPossible(VirtioDeviceState state, ulong features) =>
        (state.Status & ~(DriverBits | (uint)DeviceStatus.NeedsReset)) == 0
        && (state.InterruptStatus & ~(UsedBuffer | ConfigurationChange)) == 0
        && (state.DriverFeatures & ~(features | Version1 | IndirectDescriptors)) == 0;

    private bool PumpAll()
    {
        bool hasMore = false;
        lock (_taking)
        {
            foreach (Virtqueue? queue in _queues)
            {
                hasMore |= queue is not null && Pump(queue, queue.Size);
            }
        }

        return hasMore;
    }

    /// <summary>
    /// Looks for requests for a moment, during which the driver need not leave the guest to announce them. Whoever waits for one request before the next asks again
    /// within that moment.
    /// </summary>
    /// <returns>Whether there are more.</returns>
    private bool Poll()
    {
        // Dear guests leave at 20 to 50 microseconds; to spin for as long costs no more than it saves.
        const int Looks = 6000;
        const int Pause = 1;
        const int MaxBursts = 1024;
        SetSuppressed(true);
        int bursts = 0;
        for (int look = 0; look < Looks && bursts < MaxBursts && !IsInterrupted(); look++)
        {
            if (HasWaiting())
            {
                bursts++;
                look = 0;
                PumpAll();
            }

            Thread.SpinWait(Pause);
        }

        SetSuppressed(false);

        // Either the driver sees that it is to notify, or this sees the request.
        Interlocked.MemoryBarrier();
        return HasWaiting();
    }

    private bool IsInterrupted() =>
        Volatile.Read(ref _held) is not null || Volatile.Read(ref _isResetting) || Volatile.Read(ref _isDisposed)
        || (Volatile.Read(ref _status) & (uint)DeviceStatus.NeedsReset) != 0;

    private void SetSuppressed(bool isSuppressed)
    {
        foreach (Virtqueue? queue in _queues)
        {
            queue?.SetSuppressed(isSuppressed);
        }
    }

    private bool HasWaiting()
    {
        foreach (Virtqueue? queue in _queues)
        {
            if (queue?.HasWaiting is true)
            {
                return true;
            }
        }

        return false;
    }

    // Whoever calls counts as active, so that queues and memory stay meanwhile.
    private bool Pump(Virtqueue queue, int budget)
    {
        for (; budget > 0; budget--)
        {
            if (IsInterrupted() || !HasRoom)
            {
                return false;
            }

            VirtqueueRequest? request;
            try
            {
                request = queue.TryTake();
            }
            catch (InvalidDataException)
            {
                Stop();
                return false;
            }

            if (request is null)
            {
                return false;
            }

            Handle(queue, request);
        }

        return true;
    }

    private void Handle(Virtqueue queue, VirtqueueRequest request)
    {
        ValueTask<int> handling = HandleAsync(request);
        if (!handling.IsCompletedSuccessfully)
        {
            lock (_lock)
            {
                _active++;
            }

            _ = HandleAsync(queue, request, handling);
        }
        else if (queue.Return(request, handling.Result))
        {
            lock (_lock)
            {
                SetInterrupt(_interruptStatus | UsedBuffer);
            }
        }
    }

    private async Task HandleAsync(Virtqueue queue, VirtqueueRequest request, ValueTask<int> handling)
    {
        bool isWanted = false;
        try
        {
            isWanted = queue.Return(request, await handling.ConfigureAwait(false));
        }
        catch (InvalidDataException)
        {
            Stop();
        }
        finally
        {
            lock (_lock)
            {
                if (isWanted)
                {
                    SetInterrupt(_interruptStatus | UsedBuffer);
                }

                End();

                // There may be room again.
                Notify();
            }
        }
    }

    private uint ReadRegister(Register register) => register switch
    {
        Register.MagicValue => Magic,
        Register.Version => Version,
        Register.DeviceId => DeviceId,
        Register.VendorId => Vendor,
        Register.DeviceFeatures => _deviceFeaturesSelector switch
        {
            0 => (uint)AllFeatures,
            1 => (uint)(AllFeatures >> 32),
            _ => 0,
        },
        Register.QueueNumMax => _queueSelector < _queues.Length ? (uint)Virtqueue.MaxSize : 0,
        Register.QueueReady => _queueSelector < _queues.Length && _queues[_queueSelector] is not null ? 1u : 0,
        Register.InterruptStatus => _interruptStatus,
        Register.Status => _status,

        // There is no shared memory, which is said by a length of all ones.
        Register.SharedMemoryLengthLow or Register.SharedMemoryLengthHigh => uint.MaxValue,
        _ => 0,
    };

    private void WriteRegister(Register register, uint value)
    {
        switch (register)
        {
            case Register.DeviceFeaturesSelector:
                _deviceFeaturesSelector = value;
                break;
            case Register.DriverFeaturesSelector:
                _driverFeaturesSelector = value;
                break;
            case Register.DriverFeatures when (_status & (uint)DeviceStatus.FeaturesOk) == 0 && _driverFeaturesSelector < 2:
                int shift = (int)_driverFeaturesSelector * 32;
                _driverFeatures = (_driverFeatures & ~((ulong)uint.MaxValue << shift)) | ((ulong)value << shift);
                break;
            case Register.QueueSelector:
                _queueSelector = value;
                break;
            case Register.QueueNotify:
                Notify();
                break;
            case Register.InterruptAcknowledge:
                SetInterrupt(_interruptStatus & ~value);
                break;
            case Register.Status:
                WriteStatus(value);
                break;
            case Register.QueueReady when _queueSelector < _queues.Length:
                SetReady((int)_queueSelector, value);
                break;

            // A queue in use stays as it is.
            default:
                if (_queueSelector < _queues.Length && _queues[_queueSelector] is null)
                {
                    _settings[_queueSelector] = WithRegister(_settings[_queueSelector], register, value);
                }

                break;
        }
    }

    private static VirtqueueSettings WithRegister(VirtqueueSettings settings, Register register, uint value) => register switch
    {
        Register.QueueNum => settings with { Size = value },
        Register.QueueDescriptorsLow => settings with { Descriptors = WithLow(settings.Descriptors, value) },
        Register.QueueDescriptorsHigh => settings with { Descriptors = WithHigh(settings.Descriptors, value) },
        Register.QueueDriverLow => settings with { Available = WithLow(settings.Available, value) },
        Register.QueueDriverHigh => settings with { Available = WithHigh(settings.Available, value) },
        Register.QueueDeviceLow => settings with { Used = WithLow(settings.Used, value) },
        Register.QueueDeviceHigh => settings with { Used = WithHigh(settings.Used, value) },
        _ => settings,
    };

    private static ulong WithLow(ulong address, uint value) => (address & 0xffff_ffff_0000_0000) | value;

    private static ulong WithHigh(ulong address, uint value) => (uint)address | ((ulong)value << 32);

    private void SetReady(int queue, uint value)
    {
        // A queue is made ready, or is not any more, before the device runs, and stays what it is until a reset.
        if ((_status & (uint)DeviceStatus.DriverOk) != 0 || _isResetting)
        {
            return;
        }

        if (value == 0)
        {
            _queues[queue] = null;
        }
        else if (value == 1)
        {
            _queues[queue] ??= Virtqueue.TryCreate(_memory, _settings[queue]);
        }
    }

    private void WriteStatus(uint value)
    {
        if (value == 0)
        {
            // The status is 0 when all requests have ended; the driver waits for it.
            _isResetting = true;
            if (_active == 0)
            {
                Reset();
            }

            return;
        }

        if (_isResetting)
        {
            return;
        }

        uint added = value & ~_status;
        if ((added & (uint)DeviceStatus.FeaturesOk) != 0 && ((_driverFeatures & ~AllFeatures) != 0 || (_driverFeatures & Version1) == 0))
        {
            // Refused: the driver reads the bit back to see it.
            value &= ~(uint)DeviceStatus.FeaturesOk;
        }

        if ((added & (uint)DeviceStatus.DriverOk) != 0 && ((value | _status) & (uint)DeviceStatus.FeaturesOk) == 0)
        {
            value &= ~(uint)DeviceStatus.DriverOk;
        }

        // Bits are taken back by a reset only.
        _status |= value & DriverBits;
        Notify();
    }

    private void Reset()
    {
        _isResetting = _isNotified = false;
        _status = 0;
        _driverFeatures = 0;
        _deviceFeaturesSelector = _driverFeaturesSelector = _queueSelector = 0;
        Array.Clear(_queues);
        Array.Fill(_settings, new VirtqueueSettings());
        SetInterrupt(0);
    }

    private void Notify()
    {
        if (!CanRun)
        {
            return;
        }

        if (_isPumping)
        {
            _isNotified = true;
            return;
        }

        _isPumping = true;
        _active++;
        Schedule(this);
    }

    private void Stop()
    {
        lock (_lock)
        {
            _status |= (uint)DeviceStatus.NeedsReset;
            SetInterrupt(_interruptStatus | ConfigurationChange);
        }
    }

    private void SetInterrupt(uint status)
    {
        bool wasRaised = _interruptStatus != 0;
        _interruptStatus = status;
        if (wasRaised != (status != 0))
        {
            _interrupt(status != 0);
        }
    }

    private Task WhenQuiet()
    {
        if (_active == 0)
        {
            return Task.CompletedTask;
        }

        if (_quiet.Task.IsCompleted)
        {
            _quiet = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        }

        return _quiet.Task;
    }

    private void End()
    {
        if (--_active == 0)
        {
            if (_isResetting)
            {
                Reset();
            }

            _ = _quiet.TrySetResult();
        }
    }

    private enum Register : uint
    {
        MagicValue = 0x000,
        Version = 0x004,
        DeviceId = 0x008,
        VendorId = 0x00c,
        DeviceFeatures = 0x010,
        DeviceFeaturesSelector = 0x014,
        DriverFeatures = 0x020,
        DriverFeaturesSelector = 0x024,
        QueueSelector = 0x030,
        QueueNumMax = 0x034,
        QueueNum = 0x038,
        QueueReady = 0x044,
        QueueNotify = 0x050,
        InterruptStatus = 0x060,
        InterruptAcknowledge = 0x064,
        Status = 0x070,
        QueueDescriptorsLow = 0x080,
        QueueDescriptorsHigh = 0x084,
        QueueDriverLow = 0x090,
        QueueDriverHigh = 0x094,
        QueueDeviceLow = 0x0a0,
        QueueDeviceHigh = 0x0a4,
        SharedMemoryLengthLow = 0x0b0,
        SharedMemoryLengthHigh = 0x0b4,
    }
}
