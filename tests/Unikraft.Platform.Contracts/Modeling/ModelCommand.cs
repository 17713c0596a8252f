using System.Globalization;
using System.Runtime.InteropServices;

namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>One command. Its numbers are choices among what is there when it is carried out, so that every part of a script is a script.</summary>
/// <param name="Operation">What to do.</param>
/// <param name="Interruption">What befalls it.</param>
/// <param name="Target">To which resource.</param>
/// <param name="Variant">How.</param>
[StructLayout(LayoutKind.Auto)]
public readonly record struct ModelCommand(ModelOperation Operation, ModelInterruption Interruption, int Target, int Variant)
{
    private static readonly ModelOperation[] Weighted =
    [
        ModelOperation.Create, ModelOperation.Create, ModelOperation.Create, ModelOperation.CreateCrashing,
        ModelOperation.Branch, ModelOperation.Branch, ModelOperation.Checkpoint, ModelOperation.Checkpoint,
        ModelOperation.Load, ModelOperation.Load, ModelOperation.Convert, ModelOperation.Clone, ModelOperation.Clone,
        ModelOperation.Start, ModelOperation.Start, ModelOperation.Stop, ModelOperation.Kill, ModelOperation.Drain, ModelOperation.Drain,
        ModelOperation.Suspend, ModelOperation.Suspend, ModelOperation.Connect, ModelOperation.Connect, ModelOperation.Connect, ModelOperation.Disconnect,
        ModelOperation.Tick, ModelOperation.Tick, ModelOperation.Mark, ModelOperation.Exit, ModelOperation.Fork,
        ModelOperation.Delete, ModelOperation.DeleteCheckpoint, ModelOperation.DeleteTemplate,
        ModelOperation.Patch, ModelOperation.Patch, ModelOperation.Patch, ModelOperation.BadPatch,
        ModelOperation.Refuse, ModelOperation.Log, ModelOperation.Wait, ModelOperation.Wait, ModelOperation.Wait, ModelOperation.WaitFor,
    ];

    private static readonly ModelOperation[] WithVolumes =
    [
        .. Weighted,
        ModelOperation.CreateStore, ModelOperation.CreateStore, ModelOperation.CreateStore, ModelOperation.Put, ModelOperation.Put, ModelOperation.Put,
        ModelOperation.Get, ModelOperation.Get, ModelOperation.CreateVolume, ModelOperation.CreateVolume, ModelOperation.CreateVolume,
        ModelOperation.CloneVolume, ModelOperation.Attach, ModelOperation.Attach, ModelOperation.Attach, ModelOperation.Detach, ModelOperation.Detach,
        ModelOperation.Resize, ModelOperation.ConvertVolume, ModelOperation.DeleteVolume, ModelOperation.PatchVolume,
    ];

    private static readonly ModelOperation[] WithRestarts =
    [
        .. Weighted,
        ModelOperation.RestartHost, ModelOperation.RestartHost,
    ];

    private static readonly ModelOperation[] WithVolumesAndRestarts =
    [
        .. WithVolumes,
        ModelOperation.RestartHost, ModelOperation.RestartHost, ModelOperation.RestartHost,
    ];

    /// <summary>Makes a script.</summary>
    /// <param name="seed">The seed.</param>
    /// <param name="length">How many commands.</param>
    /// <param name="scope">What the commands are about.</param>
    public static IReadOnlyList<ModelCommand> Generate(ulong seed, int length, ModelScope scope = ModelScope.Instances)
    {
        ModelOperation[] weighted = scope switch
        {
            ModelScope.Volumes => WithVolumes,
            ModelScope.Restarts => WithRestarts,
            ModelScope.VolumesAndRestarts => WithVolumesAndRestarts,
            _ => Weighted,
        };
        Dice dice = new(seed);
        ModelCommand[] script = new ModelCommand[length];
        for (int i = 0; i < length; i++)
        {
            ModelInterruption interruption = dice.Next(12) switch
            {
                0 => ModelInterruption.Cancel,
                1 => ModelInterruption.Fail,
                _ => ModelInterruption.None,
            };
            script[i] = new ModelCommand(weighted[dice.Next(weighted.Length)], interruption, dice.Next(1000), dice.Next(1_000_000));
        }

        return script;
    }

    /// <inheritdoc/>
    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture,
        $"new({nameof(ModelOperation)}.{Operation}, {nameof(ModelInterruption)}.{Interruption}, {Target}, {Variant})");
}
