namespace Unikraft.Platform;

/// <summary>The documented text form of <see cref="TemplateState"/>.</summary>
public static class TemplateStates
{
    /// <summary>The name of the state as the templates API writes it: <c>template</c>.</summary>
    /// <param name="state">The state.</param>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="state"/> is not a state.</exception>
    public static string ToText(this TemplateState state) => state switch
    {
        TemplateState.Template => "template",
        _ => throw new ArgumentOutOfRangeException(nameof(state), state, "Not a template state."),
    };
}
