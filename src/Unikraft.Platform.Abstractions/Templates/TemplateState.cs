namespace Unikraft.Platform;

/// <summary>The state of a template. There is one only: an instance that is being turned into a template is an instance until it is one.</summary>
public enum TemplateState
{
    /// <summary><c>template</c>: ready to be cloned, which it stays until it is deleted.</summary>
    Template = 0,
}
