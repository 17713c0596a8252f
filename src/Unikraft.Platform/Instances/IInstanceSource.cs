using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Instances;

/// <summary>Something that is kept for making instances from it: a checkpoint or a template.</summary>
internal interface IInstanceSource
{
    ResourceIdentity Identity { get; }

    /// <summary>The autokill policy of an instance whose request does not say.</summary>
    AutokillPolicy? InheritedAutokill { get; }

    /// <summary>What an instance made from it is.</summary>
    /// <exception cref="PlatformException">No instance can be made from it, not yet or not any more.</exception>
    Blueprint Load();

    /// <summary>Notes that instances were made from it, or with a negative number that they have come to nothing.</summary>
    void CountLoads(int count);
}
