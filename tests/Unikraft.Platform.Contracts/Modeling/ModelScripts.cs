using System.Text;

namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>Runs scripts, and makes those that fail short.</summary>
public static class ModelScripts
{
    private const int MaxAttempts = 300;

    /// <summary>Runs a script on a platform of its own. When it fails, looks for a short script that fails as well, and reports that.</summary>
    /// <param name="script">The script.</param>
    /// <param name="run">Runs a script; the second argument says whether it is one of the many that are tried when the first has failed.</param>
    public static async Task CheckAsync(IReadOnlyList<ModelCommand> script, Func<IReadOnlyList<ModelCommand>, bool, Task<ModelFailure?>> run)
    {
        ArgumentNullException.ThrowIfNull(script);
        ArgumentNullException.ThrowIfNull(run);
        if (await run(script, false) is not { } failure)
        {
            return;
        }

        (IReadOnlyList<ModelCommand> shortest, ModelFailure shortestFailure) = await ShrinkAsync(script, failure, run);
        StringBuilder report = new();
        report.Append("A script of ").Append(shortest.Count).Append(" commands fails (it was one of ").Append(script.Count).Append("):\n");
        foreach (ModelCommand command in shortest)
        {
            report.Append("    ").Append(command).Append(",\n");
        }

        report.Append("Which is:\n").Append(shortestFailure.History).Append(shortestFailure.Error);
        throw new ModelMismatchException(report.ToString(), shortest);
    }

    // Takes away ever smaller parts as long as what is left fails.
    private static async Task<(IReadOnlyList<ModelCommand> Script, ModelFailure Failure)> ShrinkAsync(
        IReadOnlyList<ModelCommand> script,
        ModelFailure failure,
        Func<IReadOnlyList<ModelCommand>, bool, Task<ModelFailure?>> run)
    {
        int attempts = 0;
        for (int part = Math.Max(1, script.Count / 2); part > 0 && attempts < MaxAttempts;)
        {
            bool hasShrunk = false;
            for (int start = 0; start < script.Count && attempts < MaxAttempts; attempts++)
            {
                ModelCommand[] rest = [.. script.Take(start), .. script.Skip(start + part)];
                if (await run(rest, true) is { } shorter)
                {
                    (script, failure, hasShrunk) = (rest, shorter, true);
                }
                else
                {
                    start += part;
                }
            }

            part = hasShrunk && part == 1 ? 1 : part / 2;
        }

        return (script, failure);
    }
}
