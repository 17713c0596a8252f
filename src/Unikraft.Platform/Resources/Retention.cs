using Unikraft.Platform.Diagnostics;

namespace Unikraft.Platform.Resources;

/// <summary>
/// How long a resource is kept: the owner of its metadata, through which every deletion goes, and which removes it when its autokill policy says so.
/// </summary>
/// <remarks>
/// The lock makes a deletion, a patch, a conversion and an expiry happen one after the other. Under it only the registry and the timer are called; it may be taken
/// under the lock of an instance, never the other way round.
/// </remarks>
/// <param name="platform">The platform.</param>
/// <param name="kind">What the resource is called in errors and logs: <c>instance</c>.</param>
/// <param name="identity">The resource.</param>
/// <param name="metadata">What it is created with.</param>
/// <param name="remove">Takes it out of its registry; false when it is not there. Called under the lock.</param>
/// <param name="release">Frees what it holds, once it was removed.</param>
internal sealed class Retention(
    PlatformContext platform,
    string kind,
    ResourceIdentity identity,
    ResourceMetadata metadata,
    Func<bool> remove,
    Func<Task> release) : IDisposable
{
    private readonly Lock _lock = new();
    private ResourceMetadata _metadata = metadata;
    private ITimer? _timer;
    private long? _unusedSince;
    private int _users;
    private bool _isOver;

    public ResourceMetadata Metadata
    {
        get
        {
            lock (_lock)
            {
                return _metadata;
            }
        }
    }

    /// <summary>Called under the lock when something has changed that is to be kept.</summary>
    public Action? Changed { get; set; }

    /// <summary>What is to be kept of it: the metadata, and the timestamp since which the resource is not being used, if it is not.</summary>
    public (ResourceMetadata Metadata, long? UnusedSince) Save()
    {
        lock (_lock)
        {
            return (_metadata, _unusedSince);
        }
    }

    /// <summary>Goes on where a platform before has left off.</summary>
    public void Restore(TimeSpan unusedFor)
    {
        lock (_lock)
        {
            TimeProvider time = platform.TimeProvider;
            _unusedSince = time.GetTimestamp() - (long)(unusedFor.TotalSeconds * time.TimestampFrequency);
            Arm();
        }
    }

    /// <summary>Changes the metadata.</summary>
    /// <returns>False when the resource is gone.</returns>
    /// <exception cref="InvalidRequestException">One of the operations is not allowed; nothing was changed.</exception>
    public bool TryPatch(IReadOnlyList<PatchOperation> operations)
    {
        lock (_lock)
        {
            if (_isOver)
            {
                return false;
            }

            _metadata = _metadata.Apply(operations);
            Arm();
            Changed?.Invoke();
            return true;
        }
    }

    /// <summary>Deletes the resource on behalf of a user, and waits until what it held is free.</summary>
    /// <returns>False when the resource is gone already.</returns>
    /// <exception cref="DeletionProtectedException">It has a delete lock.</exception>
    public async Task<bool> TryDeleteAsync()
    {
        lock (_lock)
        {
            if (_isOver)
            {
                return false;
            }

            if (_metadata.DeleteLock)
            {
                throw new DeletionProtectedException(kind, identity.Name, identity.Uuid);
            }

            if (!remove())
            {
                return false;
            }

            End();
        }

        await release().ConfigureAwait(false);
        return true;
    }

    /// <summary>Removes the resource because it is done with, unless it has a delete lock. May be called under the lock of an instance.</summary>
    /// <returns>Frees what it held; <see langword="null"/>, and nothing is done, when it is locked or gone already.</returns>
    public Func<Task>? TryRemove()
    {
        lock (_lock)
        {
            if (_isOver || _metadata.DeleteLock || !remove())
            {
                return null;
            }

            End();
            return release;
        }
    }

    /// <summary>Hands the metadata over to the resource that takes the place of this one.</summary>
    /// <param name="successor">Of that resource, which nobody can find yet.</param>
    /// <param name="autokill">Its policy, if it is to have one of its own.</param>
    /// <param name="move">Replaces the one resource by the other. Called under the lock.</param>
    /// <returns>False, and nothing is done, when this resource is gone.</returns>
    public bool TryHandOver(Retention successor, AutokillPolicy? autokill, Func<bool> move)
    {
        lock (_lock)
        {
            if (_isOver)
            {
                return false;
            }

            successor._metadata = autokill is null ? _metadata : _metadata.Apply([new PatchOperation.SetAutokill(autokill)]);
            if (!move())
            {
                return false;
            }

            End();
            return true;
        }
    }

    /// <summary>Tells whether the resource is not being used, from which moment on its time counts. What is known already changes nothing.</summary>
    public void SetUnused(bool isUnused)
    {
        lock (_lock)
        {
            if (isUnused != _unusedSince is not null)
            {
                _unusedSince = isUnused ? platform.TimeProvider.GetTimestamp() : null;
                Arm();
                Changed?.Invoke();
            }
        }
    }

    /// <summary>Begins a use, during which the resource does not expire.</summary>
    /// <returns><see langword="null"/> when the resource is gone.</returns>
    public Use? TryEnter()
    {
        lock (_lock)
        {
            if (_isOver)
            {
                return null;
            }

            _users++;
            Arm();
            return new Use(this);
        }
    }

    /// <summary>The resource is gone.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            End();
        }
    }

    private (long? Before, long? After) Leave(bool resetsTime)
    {
        lock (_lock)
        {
            _users--;
            long? before = _unusedSince;
            if (resetsTime && _unusedSince is not null)
            {
                _unusedSince = platform.TimeProvider.GetTimestamp();
                Changed?.Invoke();
            }

            Arm();
            return (before, _unusedSince);
        }
    }

    private void Revoke(long? before, long? after)
    {
        lock (_lock)
        {
            // Somebody else may have used it since.
            if (!_isOver && _unusedSince == after)
            {
                _unusedSince = before;
                Arm();
            }

            Changed?.Invoke();
        }
    }

    private async Task ExpireAsync()
    {
        using Rundown.Scope? scope = platform.Rundown.TryEnter();
        if (scope is null)
        {
            // The resource ends with the platform.
            return;
        }

        TimeSpan time;
        lock (_lock)
        {
            // It may have been used or locked since the timer was due, or the time is longer than a timer can hold.
            if (_isOver || TimeLeft() is not { } left || left > TimeSpan.Zero)
            {
                Arm();
                return;
            }

            if (!remove())
            {
                return;
            }

            time = _metadata.Autokill!.Time;
            End();
        }

        platform.Telemetry.Autokilled(kind);
        platform.Logger.Autokilled(kind, identity.Name, identity.Uuid, time);
        try
        {
            await release().ConfigureAwait(false);
        }
        catch (Exception error)
        {
            platform.Logger.AutokillReleaseFailed(error, kind, identity.Name, identity.Uuid);
        }
    }

    // Under the lock.
    private TimeSpan? TimeLeft() =>
        _users == 0 && !_metadata.DeleteLock && _metadata.Autokill is { } policy && _unusedSince is { } since
            ? policy.Time - platform.TimeProvider.GetElapsedTime(since)
            : null;

    // Under the lock.
    private void Arm()
    {
        if (_isOver)
        {
            return;
        }

        TimeSpan due = TimeLeft() is { } left ? Durations.ForTimer(left) : Timeout.InfiniteTimeSpan;
        if (_timer is null && due == Timeout.InfiniteTimeSpan)
        {
            return;
        }

        _timer ??= platform.TimeProvider.CreateDetachedTimer(
            static retention => _ = ((Retention)retention!).ExpireAsync(),
            this,
            Timeout.InfiniteTimeSpan,
            Timeout.InfiniteTimeSpan);
        _timer.Change(due, Timeout.InfiniteTimeSpan);
    }

    // Under the lock.
    private void End()
    {
        _isOver = true;
        _timer?.Dispose();
    }

    /// <summary>A use of the resource. It ends when it is disposed of, if it has not succeeded before.</summary>
    internal sealed class Use(Retention retention) : IDisposable
    {
        private (long? Before, long? After) _success;
        private bool _isOver;

        /// <summary>Ends the use, from which on the time of the resource counts anew.</summary>
        public void Succeed()
        {
            if (!Interlocked.Exchange(ref _isOver, true))
            {
                _success = retention.Leave(resetsTime: true);
            }
        }

        /// <summary>After it has succeeded: what it was for has come to nothing, and the time counts from where it did.</summary>
        public void Revoke() => retention.Revoke(_success.Before, _success.After);

        public void Dispose()
        {
            if (!Interlocked.Exchange(ref _isOver, true))
            {
                retention.Leave(resetsTime: false);
            }
        }
    }
}
