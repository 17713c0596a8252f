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
        return await ConvertAsync(instances.Find(instance), onlyIn: null, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Turns an instance into a template.</summary>
    /// <param name="instance">The instance.</param>
    /// <param name="onlyIn">The run whose guest has asked for it; <see langword="null"/> when the caller has.</param>
    /// <param name="cancellationToken">Cancels the conversion as long as it is not done.</param>
    public async Task<Template> ConvertAsync(InstanceController instance, InstanceRun? onlyIn, CancellationToken cancellationToken)
    {
        CloneSource clone = await instance
            .BeginCloneAsync(ClonePurpose.Template, onlyIn, waitForPending: false, cancellationToken)
            .ConfigureAwait(false);
        SnapshotReference? snapshot = clone.Snapshot;
        if (clone.Machine is not null)
        {
            snapshot = await platform.CancelOnCloseAsync(
                token => instance.CaptureAsync(clone, ClonePurpose.Template, pauseBudget: null, token),
                cancellationToken).ConfigureAwait(false);
        }

        StoredTemplate template = new(clone, snapshot, instance.Origin, platform.TimeProvider.GetUtcNow());
        if (!instances.MoveTo(templates, instance.Identity, template))
        {
            // Deleted meanwhile, or converted by somebody else: its machine is being ended in any case.
            template.Dispose();
            throw instances.NotFound(instance.Identity.Uuid);
        }

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
        if (!Remove(found))
        {
            throw templates.NotFound(template);
        }

        // Giving memory back takes its time.
        await Task.Run(found.Dispose, CancellationToken.None).ConfigureAwait(false);
        platform.Logger.TemplateDeleted(found.Identity.Name, found.Identity.Uuid);
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
