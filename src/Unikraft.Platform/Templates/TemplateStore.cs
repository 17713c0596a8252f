using Unikraft.Platform.Checkpoints;
using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Resources;

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
    public async Task<Template> ConvertAsync(
        InstanceController instance,
        InstanceRun? onlyIn,
        AutokillPolicy? autokill,
        CancellationToken cancellationToken)
    {
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

        StoredTemplate template = new(clone, snapshot, instance.Origin, platform, Remove);
        if (!instance.Retention.TryHandOver(
            template.Retention,
            autokill,
            () => instances.MoveTo(templates, instance.Identity, template)))
        {
            // Deleted meanwhile, or converted by somebody else: its machine is being ended in any case.
            template.Dispose();
            throw instances.NotFound(instance.Identity.Uuid);
        }

        template.Retention.SetUnused(true);
        NameOrUuid uuid = instance.Identity.Uuid;
        await live.CloseAsync(instance, StopInitiator.Platform, () => instances.NotFound(uuid)).ConfigureAwait(false);
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

        platform.Logger.TemplateDeleted(found.Identity.Name, found.Identity.Uuid);
    }

    public Task<Template> PatchAsync(
        NameOrUuid template,
        IReadOnlyList<PatchOperation> operations,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(operations);
        platform.Rundown.ThrowIfClosed();
        cancellationToken.ThrowIfCancellationRequested();
        StoredTemplate found = templates.Find(template);
        return found.Retention.TryPatch(operations) ? Task.FromResult(found.Describe()) : throw templates.NotFound(template);
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

    private bool Remove(StoredTemplate template)
    {
        bool removed = templates.Remove(template.Identity);
        if (removed)
        {
            instances.Release(template.Identity);
        }

        return removed;
    }
}
