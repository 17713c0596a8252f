namespace Unikraft.Platform;

/// <summary>Makes and keeps templates: instances that do not run any more and serve as a source of clones.</summary>
/// <remarks>
/// <para>
/// Clone one with <see cref="IInstanceManager.CreateAsync"/> and <see cref="CreateInstanceRequest.Template"/>. An instance becomes a template by
/// <see cref="ConvertAsync(NameOrUuid, CancellationToken)"/> or by its guest's own request, with the same result. There is no way back. Clones can become templates in turn,
/// to any depth.
/// </para>
/// <para>
/// Safe for concurrent use. Every method throws <see cref="ObjectDisposedException"/> after the platform was disposed of, and those that are given a
/// template throw <see cref="ResourceNotFoundException"/> for an unknown one.
/// </para>
/// </remarks>
public interface ITemplateStore
{
    /// <summary>
    /// Turns an instance into a template of the same UUID and name. It is no instance from then on: it is not listed, and cannot be started,
    /// stopped or branched. Whoever waits for a state of it is told that it is gone. It keeps the tags, the delete lock and the autokill policy.
    /// </summary>
    /// <param name="instance">
    /// The instance. A running one stands still, and its clones continue from there. Clones of one that is stopped or in standby start like itself: from its
    /// snapshot if it has one, else from its image.
    /// </param>
    /// <param name="cancellationToken">Cancels the conversion as long as it is not done; the instance then goes on.</param>
    /// <returns>The template; nothing of the machine is left.</returns>
    /// <exception cref="ResourceNotFoundException">There is no such instance, or it was deleted meanwhile.</exception>
    /// <exception cref="WrongStateException">The instance is starting, draining or stopping, or it was stopped meanwhile.</exception>
    /// <exception cref="PlatformException">
    /// <see cref="PlatformErrorCode.SnapshotPending"/>: the instance has a snapshot in progress. Retry once it completes.
    /// </exception>
    /// <exception cref="HypervisorException">The snapshot failed. The instance goes on.</exception>
    Task<Template> ConvertAsync(NameOrUuid instance, CancellationToken cancellationToken = default);

    /// <summary>The same with an autokill policy for the template, in the place of that of the instance.</summary>
    /// <param name="instance">The instance.</param>
    /// <param name="autokill">When the template is removed for want of clones.</param>
    /// <param name="cancellationToken">Cancels the conversion as long as it is not done; the instance then goes on.</param>
    /// <returns>The template; nothing of the machine is left.</returns>
    /// <inheritdoc cref="ConvertAsync(NameOrUuid, CancellationToken)" path="/exception"/>
    /// <exception cref="InvalidRequestException">The policy is out of range. The instance goes on.</exception>
    Task<Template> ConvertAsync(NameOrUuid instance, AutokillPolicy autokill, CancellationToken cancellationToken = default);

    /// <summary>Looks a template up.</summary>
    /// <param name="template">The template.</param>
    Template Get(NameOrUuid template);

    /// <summary>Lists all templates, by the age of the instances that they were made of, oldest first.</summary>
    IReadOnlyList<Template> List();

    /// <summary>Deletes a template and frees its name. Its clones, and templates made of those, go on.</summary>
    /// <param name="template">The template.</param>
    /// <param name="cancellationToken">Cancels the deletion as long as it has not begun.</param>
    /// <exception cref="DeletionProtectedException">It has a delete lock.</exception>
    Task DeleteAsync(NameOrUuid template, CancellationToken cancellationToken = default);

    /// <summary>Changes the tags, the delete lock and the autokill policy of a template: all that is asked for, or nothing.</summary>
    /// <param name="template">The template.</param>
    /// <param name="operations">What to change, in order.</param>
    /// <param name="cancellationToken">Cancels the patch as long as it has not begun.</param>
    /// <returns>The template as it is then.</returns>
    /// <exception cref="InvalidRequestException">An operation is not allowed. Nothing was changed.</exception>
    Task<Template> PatchAsync(NameOrUuid template, IReadOnlyList<PatchOperation> operations, CancellationToken cancellationToken = default);
}
