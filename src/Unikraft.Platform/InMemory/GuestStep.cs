namespace Unikraft.Platform.InMemory;

/// <summary>What a scripted guest does next. Made by the static members.</summary>
public abstract class GuestStep
{
    private protected GuestStep()
    {
    }

    /// <summary>The guest goes on with its next step.</summary>
    public static GuestStep Continue { get; } = new Proceed();

    /// <summary>The guest spins without looking at anything, so that only force ends it.</summary>
    public static GuestStep Hang { get; } = new Spin();

    /// <summary>The guest switches the machine off and does not say why.</summary>
    public static GuestStep PowerOff { get; } = new Off(null);

    /// <summary>
    /// The guest asks to become a template. Its next step follows in every clone, and in this machine only when the platform refuses: see
    /// <see cref="ScriptedGuestContext.RequestError"/>.
    /// </summary>
    public static GuestStep BecomeTemplate { get; } = new Request(GuestRequest.Template);

    /// <summary>
    /// The guest asks to be forked. Its next step finds in <see cref="ScriptedGuestContext.RequestError"/> whether it was, and in
    /// <see cref="ScriptedGuestContext.IsForkChild"/> on which side it is.
    /// </summary>
    public static GuestStep Fork { get; } = new Request(GuestRequest.Fork);

    /// <summary>An exception occurs, and no handler can be entered.</summary>
    public static GuestStep TripleFault { get; } = new Triple();

    /// <summary>The guest sleeps until one of the events is pending or a time has come.</summary>
    /// <param name="events">The events.</param>
    /// <param name="deadline">The time, on the clock of <see cref="ScriptedGuestContext.Monotonic"/>. Default: never.</param>
    public static GuestStep Wait(GuestEvents events, TimeSpan? deadline = null) => new Sleep(events, deadline);

    /// <summary>The app leaves its main entry point and the kernel shuts down cleanly.</summary>
    /// <param name="exitCode">The exit code of the app.</param>
    public static GuestStep Exit(int exitCode) => new Leave(exitCode);

    /// <summary>The kernel stops. The init level and the shutdown bit of the stop code are those the guest has set.</summary>
    /// <param name="reason">Why.</param>
    /// <param name="errno">A Linux error number, 0 to 255.</param>
    /// <exception cref="ArgumentOutOfRangeException">An argument does not fit into a stop code.</exception>
    public static GuestStep Stop(StopCodeReason reason, int errno = 0) => new Off(new StopCode(reason, errno, initLevel: 0));

    /// <summary>A CPU exception occurs. The stop code is made from it as the guest ABI says.</summary>
    /// <param name="vector">The x86 exception vector, for example 14 for a page fault.</param>
    /// <param name="errorCode">The error code. Bit 0 of a page fault's says that the page was mapped.</param>
    /// <param name="address">For a page fault, the address: from the size of the memory up to 512 GiB it means out of memory.</param>
    /// <param name="instructionPointer">The address of the instruction.</param>
    public static GuestStep Crash(int vector, ulong errorCode = 0, ulong? address = null, ulong instructionPointer = 0x100000) =>
        new Fault(new GuestFault(Vcpu: 0, vector, errorCode, instructionPointer, StackPointer: 0, address), isGuardPage: false);

    /// <summary>The stack runs into its guard page.</summary>
    /// <param name="address">The address in the guard page.</param>
    public static GuestStep StackOverflow(ulong address) =>
        new Fault(new GuestFault(Vcpu: 0, Vector: 14, ErrorCode: 6, InstructionPointer: 0x100000, address, address), isGuardPage: true);

    internal sealed class Proceed : GuestStep;

    internal sealed class Spin : GuestStep;

    internal sealed class Triple : GuestStep;

    internal sealed class Request(GuestRequest what) : GuestStep
    {
        public GuestRequest What { get; } = what;
    }

    internal sealed class Sleep(GuestEvents events, TimeSpan? deadline) : GuestStep
    {
        public GuestEvents Events { get; } = events;

        public TimeSpan? Deadline { get; } = deadline;
    }

    internal sealed class Leave(int exitCode) : GuestStep
    {
        public int ExitCode { get; } = exitCode;
    }

    internal sealed class Off(StopCode? stopCode) : GuestStep
    {
        public StopCode? StopCode { get; } = stopCode;
    }

    internal sealed class Fault(GuestFault fault, bool isGuardPage) : GuestStep
    {
        public GuestFault GuestFault { get; } = fault;

        public bool IsGuardPage { get; } = isGuardPage;
    }

    internal sealed class Failure(Exception error) : GuestStep
    {
        public Exception Error { get; } = error;
    }
}
