using System.Diagnostics.CodeAnalysis;

namespace Unikraft.Platform.Resources;

/// <summary>All instances, all checkpoints or all templates: finds them by name and UUID, and keeps names unique.</summary>
/// <remarks>
/// A name is reserved before its resource is made, so that of two requests for one name the second fails before anything is done for it.
/// The resource can be found once it is added.
/// </remarks>
/// <typeparam name="T">The resource.</typeparam>
/// <param name="kind">What the resource is called in errors: <c>instance</c>.</param>
/// <param name="kindWithArticle">The same with an indefinite article: <c>An instance</c>.</param>
/// <param name="timeProvider">The clock.</param>
/// <param name="quotas">Counts what is reserved here until it, or what it was moved to, is removed; <see langword="null"/> when that has no quota.</param>
internal sealed class ResourceRegistry<T>(string kind, string kindWithArticle, TimeProvider timeProvider, QuotaUse? quotas = null)
    where T : class
{
    private readonly Lock _lock = new();
    // A name and who holds it: a resource of this kind or, when it was moved, of another one.
    private readonly Dictionary<string, (Guid Uuid, string Kind)> _names = new(StringComparer.Ordinal);
    private readonly Dictionary<Guid, (ResourceIdentity Identity, T Resource)> _resources = [];
    private readonly Dictionary<Guid, DataDamageException> _damaged = [];
    private long _lastOrder;

    private string KindWithArticle => kindWithArticle;

    /// <summary>Reserves a name, or a generated one when none is requested.</summary>
    /// <exception cref="InvalidRequestException">The requested name breaks the rules.</exception>
    /// <exception cref="NameConflictException">The requested name is taken.</exception>
    /// <exception cref="QuotaExceededException">There are as many resources as there may be.</exception>
    public ResourceIdentity Reserve(string? requested, string baseName)
    {
        if (requested is not null)
        {
            ResourceName.Require(requested);
        }

        DateTimeOffset now = timeProvider.GetUtcNow();
        Guid uuid = Guid.CreateVersion7(now);
        lock (_lock)
        {
            string name = requested ?? ResourceName.Generate(baseName);
            while (_names.TryGetValue(name, out var holder))
            {
                name = requested is null ? ResourceName.Generate(baseName) : throw new NameConflictException(holder.Kind, requested);
            }

            quotas?.Allocate(kind);
            _names.Add(name, (uuid, kindWithArticle));

            return new ResourceIdentity(uuid, name, now, ++_lastOrder);
        }
    }

    public void Add(ResourceIdentity identity, T resource)
    {
        lock (_lock)
        {
            _resources.Add(identity.Uuid, (identity, resource));
        }
    }

    /// <summary>Frees the name; the resource cannot be found any more.</summary>
    /// <returns>Whether the resource could be found until now.</returns>
    public bool Remove(ResourceIdentity identity)
    {
        lock (_lock)
        {
            if (_names.TryGetValue(identity.Name, out var holder) && holder == (identity.Uuid, kindWithArticle))
            {
                _names.Remove(identity.Name);
                quotas?.Free();
            }

            return _resources.Remove(identity.Uuid);
        }
    }

    /// <summary>Replaces a resource by one of another kind and the same identity. Its name stays taken here until it is released.</summary>
    /// <returns>False, and nothing is done, when the resource cannot be found any more.</returns>
    public bool MoveTo<TOther>(ResourceRegistry<TOther> other, ResourceIdentity identity, TOther resource)
        where TOther : class
    {
        // One lock within the other, so that who does not find the instance any more finds the template. It is taken in this order only.
        lock (_lock)
        {
            if (!_resources.Remove(identity.Uuid))
            {
                return false;
            }

            _names[identity.Name] = (identity.Uuid, other.KindWithArticle);
            other.Adopt(identity, resource);
            return true;
        }
    }

    /// <summary>Frees the name of a resource that was moved.</summary>
    public void Release(ResourceIdentity identity)
    {
        lock (_lock)
        {
            if (_names.TryGetValue(identity.Name, out var holder) && holder.Uuid == identity.Uuid)
            {
                _names.Remove(identity.Name);
            }
        }
    }

    /// <summary>Reserves a name for a resource that has its UUID from elsewhere.</summary>
    /// <exception cref="NameConflictException">The name is taken, or there is a resource of that UUID.</exception>
    /// <exception cref="QuotaExceededException">There are as many resources as there may be.</exception>
    public ResourceIdentity ReserveImported(Guid uuid, string name, DateTimeOffset createdAt)
    {
        lock (_lock)
        {
            if (_resources.TryGetValue(uuid, out var present))
            {
                throw new NameConflictException(kindWithArticle, present.Identity.Name);
            }

            if (_names.TryGetValue(name, out var holder))
            {
                throw new NameConflictException(holder.Kind, name);
            }

            quotas?.Allocate(kind);
            _names.Add(name, (uuid, kindWithArticle));
            return new ResourceIdentity(uuid, name, createdAt, ++_lastOrder);
        }
    }

    /// <summary>Adds a resource that was kept.</summary>
    public void Recover(ResourceIdentity identity, T resource)
    {
        lock (_lock)
        {
            Adopt(identity, resource);
            quotas?.Recover();
            _lastOrder = Math.Max(_lastOrder, identity.Order);
        }
    }

    /// <summary>Takes a name for a resource of another kind, as a move does.</summary>
    public void RecoverMoved<TOther>(ResourceRegistry<TOther> other, ResourceIdentity identity)
        where TOther : class
    {
        lock (_lock)
        {
            _names.TryAdd(identity.Name, (identity.Uuid, other.KindWithArticle));
            _lastOrder = Math.Max(_lastOrder, identity.Order);
        }
    }

    /// <summary>Notes a resource that was kept and is damaged: whoever wants it by its UUID is told so.</summary>
    public void AddDamaged(Guid uuid, DataDamageException damage)
    {
        lock (_lock)
        {
            _damaged[uuid] = damage;
        }
    }

    public bool RemoveDamaged(Guid uuid)
    {
        lock (_lock)
        {
            return _damaged.Remove(uuid);
        }
    }

    /// <exception cref="ResourceNotFoundException">There is none.</exception>
    /// <exception cref="DataDamageException">It is damaged.</exception>
    public T Find(NameOrUuid reference) => TryFind(reference, out T? resource) ? resource : throw Unusable(reference);

    private Exception Unusable(NameOrUuid reference)
    {
        lock (_lock)
        {
            return reference.Uuid is { } uuid && _damaged.TryGetValue(uuid, out DataDamageException? damage)
                ? new DataDamageException(damage.Path, damage.Dependents, damage.Message, damage)
                : NotFound(reference);
        }
    }

    public ResourceNotFoundException NotFound(NameOrUuid reference) => new(kind, reference);

    /// <summary>All resources, oldest first.</summary>
    public IReadOnlyList<T> List()
    {
        lock (_lock)
        {
            return [.. _resources.Values.OrderBy(entry => entry.Identity.Order).Select(entry => entry.Resource)];
        }
    }

    private void Adopt(ResourceIdentity identity, T resource)
    {
        lock (_lock)
        {
            _names.Add(identity.Name, (identity.Uuid, kindWithArticle));
            _resources.Add(identity.Uuid, (identity, resource));
        }
    }

    public bool TryFind(NameOrUuid reference, [NotNullWhen(true)] out T? resource)
    {
        lock (_lock)
        {
            Guid uuid = reference.Uuid ?? _names.GetValueOrDefault(reference.Name!).Uuid;
            resource = _resources.TryGetValue(uuid, out var entry) ? entry.Resource : null;
            return resource is not null;
        }
    }
}
