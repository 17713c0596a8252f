using Unikraft.Platform.Checkpoints;
using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Resources;
using Unikraft.Platform.Storage;

namespace Unikraft.Platform.Templates;

internal sealed class TemplateStore(
    PlatformContext platform,
    ResourceRegistry<InstanceController> instances,
    LiveInstances live,
    ResourceRegistry<StoredTemplate> templates) : ITemplateStore
{
    public async Task<Template> ConvertAsync(NameOrUuid instance, CancellationToken cancellationToken = default)
    {
        using Rundown.Scope scope = platform.Rundown.Enter();
        cancellationToken.ThrowIfCancellationRequested();
        return await ConvertAsync(instances.Find(instance), onlyIn: null, autokill: null, cancellationToken).ConfigureAwait(false);
    }

    public async Task<Template> ConvertAsync(NameOrUuid instance, AutokillPolicy autokill, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(autokill);
        using Rundown.Scope scope = platform.Rundown.Enter();
        cancellationToken.ThrowIfCancellationRequested();
        Durations.RequireAutokill(autokill.Time);
        return await ConvertAsync(instances.Find(instance), onlyIn: null, autokill, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Turns an instance into a template.</summary>
    /// <param name="instance">The instance.</param>
    /// <param name="onlyIn">The run whose guest has asked for it; <see langword="null"/> when the caller has.</param>
    /// <param name="autokill">The policy of the template; that of the instance when <see langword="null"/>.</param>
    /// <param name="cancellationToken">Cancels the conversion as long as it is not done.</param>
    public Task<Template> ConvertAsync(
        InstanceController instance,
        InstanceRun? onlyIn,
        AutokillPolicy? autokill,
        CancellationToken cancellationToken) => platform.Telemetry.TraceAsync(
            TelemetryNames.ConvertActivity,
            instance.Identity,
            () => ConvertTracedAsync(instance, onlyIn, autokill, cancellationToken));

    private async Task<Template> ConvertTracedAsync(
        InstanceController instance,
        InstanceRun? onlyIn,
        AutokillPolicy? autokill,
        CancellationToken cancellationToken)
    {
        await (platform.Data?.RequireSpaceAsync(cancellationToken) ?? Task.CompletedTask).ConfigureAwait(false);
        CloneSource clone = await instance.Snapshots
            .BeginCloneAsync(ClonePurpose.Template, onlyIn, waitForPending: false, cancellationToken)
            .ConfigureAwait(false);
        SnapshotReference? snapshot = clone.Snapshot;
        if (clone.Machine is not null)
        {
            snapshot = await platform.CancelOnCloseAsync(
                token => instance.Snapshots.CaptureAsync(clone, ClonePurpose.Template, pauseBudget: null, token),
                cancellationToken).ConfigureAwait(false);
        }

        if (platform.Data is { } data && snapshot is not null)
        {
            await KeepAsync(data, clone, snapshot, instance.Identity.Uuid, cancellationToken).ConfigureAwait(false);
        }

        StoredTemplate template = new(clone, snapshot, instance.Origin, platform, Remove);
        if (!TryHandOver(instance, template, autokill))
        {
            // Deleted meanwhile, or converted by somebody else: its machine is being ended in any case.
            template.Dispose();
            throw instances.NotFound(instance.Identity.Uuid);
        }

        // While it is not on the disk that there is a template, the volumes are those of the instance there.
        bool isWritten = await platform.TryCommitAsync().ConfigureAwait(false);
        if (snapshot is not null)
        {
            platform.Volumes.Adopt(snapshot, instance.Identity.Uuid, isWritten);
        }

        NameOrUuid uuid = instance.Identity.Uuid;
        await live.CloseAsync(instance, StopInitiator.Platform, () => instances.NotFound(uuid)).ConfigureAwait(false);
        await platform.CommitAsync().ConfigureAwait(false);
        platform.Logger.TemplateReady(instance.Identity.Name, instance.Identity.Uuid, template.Describe().StoredBytes);
        return template.Describe();
    }

    public Template Get(NameOrUuid template)
    {
        platform.Rundown.ThrowIfClosed();
        return templates.Find(template).Describe();
    }

    public IReadOnlyList<Template> List()
    {
        platform.Rundown.ThrowIfClosed();
        return [.. templates.List().Select(template => template.Describe())];
    }

    public async Task DeleteAsync(NameOrUuid template, CancellationToken cancellationToken = default)
    {
        using Rundown.Scope scope = platform.Rundown.Enter();
        cancellationToken.ThrowIfCancellationRequested();
        StoredTemplate found = templates.Find(template);
        if (!await found.Retention.TryDeleteAsync().ConfigureAwait(false))
        {
            throw templates.NotFound(template);
        }

        await platform.CommitAsync().ConfigureAwait(false);
        platform.Logger.TemplateDeleted(found.Identity.Name, found.Identity.Uuid);
    }

    public async Task<Template> PatchAsync(
        NameOrUuid template,
        IReadOnlyList<PatchOperation> operations,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(operations);
        platform.Rundown.ThrowIfClosed();
        cancellationToken.ThrowIfCancellationRequested();
        StoredTemplate found = templates.Find(template);
        if (!found.Retention.TryPatch(operations))
        {
            throw templates.NotFound(template);
        }

        await platform.CommitAsync().ConfigureAwait(false);
        return found.Describe();
    }

    /// <summary>Lets go of all snapshots. No operation runs any more.</summary>
    public void CloseAll()
    {
        foreach (StoredTemplate template in templates.List())
        {
            Remove(template);
            template.Dispose();
        }
    }

    /// <summary>Adds a template that was kept.</summary>
    public void Recover(Guid uuid, TemplateRecord record, DataDirectory data)
    {
        StoredTemplate template = StoredTemplate.Recover(uuid, record, data, platform, Remove);
        templates.Recover(template.Identity, template);
        instances.RecoverMoved(templates, template.Identity);
    }

    private async Task KeepAsync(DataDirectory data, CloneSource clone, SnapshotReference snapshot, Guid instance, CancellationToken cancellationToken)
    {
        try
        {
            await snapshot.KeepAsync(data, cancellationToken).ConfigureAwait(false);
            await Task.Run(() => platform.Volumes.PlanAdoption(snapshot, instance), cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            snapshot.Dispose();
            // It stands still for the snapshot, and goes on without.
            clone.Machine?.Resume();
            throw;
        }
    }

    // Together, so that there is never both of them nor neither.
    private bool TryHandOver(InstanceController instance, StoredTemplate template, AutokillPolicy? autokill)
    {
        if (platform.Data is not { } data)
        {
            return HandOver();
        }

        lock (data.Gate)
        {
            bool isDone = HandOver();
            if (isDone)
            {
                data.Removed(instance.Key);
                data.Changed(template);
            }

            return isDone;
        }

        bool HandOver()
        {
            bool isDone = instance.Retention.TryHandOver(
                template.Retention,
                autokill,
                () => instances.MoveTo(templates, instance.Identity, template));
            if (isDone)
            {
                template.Retention.SetUnused(true);
            }

            return isDone;
        }
    }

    private bool Remove(StoredTemplate template)
    {
        // First: what somebody has seen to be gone is gone from the disk with the next change that is told of.
        if (templates.TryFind(template.Identity.Uuid, out _))
        {
            platform.Data?.Removed(template.Key);
        }

        bool removed = templates.Remove(template.Identity);
        if (removed)
        {
            instances.Release(template.Identity);
        }

        return removed;
    }
}
