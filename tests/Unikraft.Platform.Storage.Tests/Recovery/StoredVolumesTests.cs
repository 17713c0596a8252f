using Unikraft.Platform.Resources;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>What the catalog finds of volumes by what owns them is what a look at each of them finds.</summary>
public sealed class StoredVolumesTests
{
    [Fact]
    public void The_volumes_of_an_owner_are_those_that_say_so_after_any_changes()
    {
        const int Steps = 5_000;
        Random random = new(11);
        Guid[] ids = [.. Enumerable.Range(0, 40).Select(static _ => Guid.NewGuid())];
        Guid?[] owners = [null, .. Enumerable.Range(0, 6).Select(static _ => (Guid?)Guid.NewGuid())];
        StoredVolumes volumes = new();
        for (int step = 0; step < Steps; step++)
        {
            Guid id = ids[random.Next(ids.Length)];
            Guid? owner = owners[random.Next(owners.Length)];
            if (!volumes.TryFind(id, out StoredVolume? volume))
            {
                volumes.Add(new StoredVolume(new ResourceIdentity(id, id.ToString("D"), default, step), RecordOf(id, owner)));
            }
            else if (random.Next(2) == 0)
            {
                volumes.Set(volume, RecordOf(id, owner));
                Assert.Equal(owner, volume.Record.Owner);
            }
            else
            {
                Assert.True(volumes.Remove(id));
                Assert.False(volumes.Remove(id));
                Assert.Null(volumes.Find(id));
            }

            foreach (Guid each in owners.OfType<Guid>())
            {
                Assert.Equal(
                    volumes.All.Where(found => found.Record.Owner == each).Select(static found => found.Identity.Uuid).Order(),
                    volumes.OwnedBy(each).Select(static found => found.Identity.Uuid).Order());
            }
        }

        Assert.Empty(volumes.OwnedBy(Guid.NewGuid()));
    }

    private static VolumeRecord RecordOf(Guid id, Guid? owner) => new() { Uuid = id, CreatedAt = default, Owner = owner };
}
