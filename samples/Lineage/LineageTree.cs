using Spectre.Console;
using Unikraft.Platform;

namespace Lineage;

/// <summary>Where instances, checkpoints and templates come from, drawn as a tree.</summary>
internal static class LineageTree
{
    public static Tree Draw(IUnikraftPlatform platform)
    {
        IReadOnlyList<Instance> instances = platform.Instances.List();
        IReadOnlyList<Checkpoint> checkpoints = platform.Checkpoints.List();
        IReadOnlyList<Template> templates = platform.Templates.List();
        ILookup<Guid, string> texts = instances.Select(instance => (instance.Uuid, Text: $"[green]{instance.Name}[/] [grey]{instance.State.ToText()}[/]"))
            .Concat(checkpoints.Select(checkpoint => (checkpoint.Uuid, Text: $"[blue]{checkpoint.Name}[/] [grey]checkpoint, {checkpoint.LoadCount} loads, {checkpoint.StoredBytes >> 10} KiB[/]")))
            .Concat(templates.Select(template => (template.Uuid, Text: $"[magenta]{template.Name}[/] [grey]template, {template.CloneCount} clones[/]")))
            .ToLookup(entry => entry.Uuid, entry => entry.Text);
        ILookup<Guid, Guid> children = instances.Select(instance => (Parent: instance.Origin?.Uuid, instance.Uuid))
            .Concat(checkpoints.Select(checkpoint => (Parent: (Guid?)checkpoint.SourceUuid, checkpoint.Uuid)))
            .Concat(templates.Select(template => (Parent: template.Origin?.Uuid, template.Uuid)))
            // What a source that is gone was made from is not known any more.
            .ToLookup(entry => entry.Parent is { } parent && texts.Contains(parent) ? parent : Guid.Empty, entry => entry.Uuid);

        Tree tree = new("[bold]lineage[/]");
        Add(tree, Guid.Empty);
        return tree;

        void Add(IHasTreeNodes node, Guid parent)
        {
            foreach (Guid child in children[parent])
            {
                Add(node.AddNode(texts[child].First()), child);
            }
        }
    }
}
