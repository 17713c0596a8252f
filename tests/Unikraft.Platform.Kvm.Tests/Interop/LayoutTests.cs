using System.Globalization;
using System.Reflection;
using System.Reflection.Emit;
using System.Text;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Interop;

/// <summary>Holds everything that is written down twice, here and in the headers of C, against the headers.</summary>
[RequiresKernelHeaders]
public sealed class LayoutTests
{
    private const BindingFlags Members = BindingFlags.Static | BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic;

    private const string Includes = """
        #define _GNU_SOURCE
        #include <errno.h>
        #include <fcntl.h>
        #include <signal.h>
        #include <stddef.h>
        #include <stdio.h>
        #include <sys/file.h>
        #include <sys/ioctl.h>
        #include <sys/mman.h>
        #include <sys/stat.h>
        #include <linux/kvm.h>
        #include <sys/syscall.h>
        #include <time.h>
        #include <linux/memfd.h>
        #include <linux/userfaultfd.h>

        """;

    /// <summary>The C names: of a structure the type, then for each field of C# the field of C.</summary>
    private static readonly Dictionary<Type, (string CType, string Fields)> Structures = new()
    {
        [typeof(KvmUserspaceMemoryRegion)] = (
            "struct kvm_userspace_memory_region",
            "Slot=slot Flags=flags GuestPhysAddr=guest_phys_addr MemorySize=memory_size UserspaceAddr=userspace_addr"),
        [typeof(KvmDirtyLog)] = ("struct kvm_dirty_log", "Slot=slot Padding1=padding1 DirtyBitmap=dirty_bitmap"),
        [typeof(KvmClearDirtyLog)] = (
            "struct kvm_clear_dirty_log",
            "Slot=slot NumPages=num_pages FirstPage=first_page DirtyBitmap=dirty_bitmap"),
        [typeof(KvmEnableCap)] = ("struct kvm_enable_cap", "Cap=cap Flags=flags Args=args Pad=pad"),
        [typeof(KvmIrqLevel)] = ("struct kvm_irq_level", "Irq=irq Level=level"),
        [typeof(KvmRegs)] = (
            "struct kvm_regs",
            "Rax=rax Rbx=rbx Rcx=rcx Rdx=rdx Rsi=rsi Rdi=rdi Rsp=rsp Rbp=rbp R8=r8 R9=r9 R10=r10 R11=r11 R12=r12 R13=r13 R14=r14 R15=r15 "
            + "Rip=rip Rflags=rflags"),
        [typeof(KvmSegment)] = (
            "struct kvm_segment",
            "Base=base Limit=limit Selector=selector Type=type Present=present Dpl=dpl Db=db S=s L=l G=g Avl=avl Unusable=unusable "
            + "Padding=padding"),
        [typeof(KvmDtable)] = ("struct kvm_dtable", "Base=base Limit=limit Pad=padding"),
        [typeof(KvmSregs)] = (
            "struct kvm_sregs",
            "Cs=cs Ds=ds Es=es Fs=fs Gs=gs Ss=ss Tr=tr Ldt=ldt Gdt=gdt Idt=idt Cr0=cr0 Cr2=cr2 Cr3=cr3 Cr4=cr4 Cr8=cr8 Efer=efer "
            + "ApicBase=apic_base InterruptBitmap=interrupt_bitmap"),
        [typeof(KvmXsave)] = ("struct kvm_xsave", "_first=region[0]"),
        [typeof(KvmXcr)] = ("struct kvm_xcr", "Xcr=xcr Reserved=reserved Value=value"),
        [typeof(KvmXcrs)] = ("struct kvm_xcrs", "NrXcrs=nr_xcrs Flags=flags Xcrs=xcrs Pad=padding"),
        [typeof(KvmVcpuEvents)] = (
            "struct kvm_vcpu_events",
            "ExceptionInjected=exception.injected ExceptionNr=exception.nr ExceptionHasErrorCode=exception.has_error_code "
            + "ExceptionPending=exception.pending ExceptionErrorCode=exception.error_code InterruptInjected=interrupt.injected "
            + "InterruptNr=interrupt.nr InterruptSoft=interrupt.soft InterruptShadow=interrupt.shadow NmiInjected=nmi.injected "
            + "NmiPending=nmi.pending NmiMasked=nmi.masked NmiPad=nmi.pad SipiVector=sipi_vector Flags=flags SmiSmm=smi.smm "
            + "SmiPending=smi.pending SmiSmmInsideNmi=smi.smm_inside_nmi SmiLatchedInit=smi.latched_init "
            + "TripleFaultPending=triple_fault.pending Reserved=reserved ExceptionHasPayload=exception_has_payload "
            + "ExceptionPayload=exception_payload"),
        [typeof(KvmSyncRegs)] = ("struct kvm_sync_regs", "Regs=regs Sregs=sregs Events=events"),
        [typeof(KvmDebugregs)] = ("struct kvm_debugregs", "Db=db Dr6=dr6 Dr7=dr7 Flags=flags Reserved=reserved"),
        [typeof(KvmMsrEntry)] = ("struct kvm_msr_entry", "Index=index Reserved=reserved Data=data"),
        [typeof(KvmMsrs)] = ("struct two_msrs", "NMsrs=header.nmsrs Pad=header.pad First=first Second=second"),
        [typeof(KvmCpuidEntry2)] = (
            "struct kvm_cpuid_entry2",
            "Function=function Index=index Flags=flags Eax=eax Ebx=ebx Ecx=ecx Edx=edx Pad=padding"),
        [typeof(KvmLapicState)] = ("struct kvm_lapic_state", "_first=regs[0]"),
        [typeof(KvmMpState)] = ("struct kvm_mp_state", "MpState=mp_state"),
        [typeof(KvmIrqchip)] = ("struct kvm_irqchip", "ChipId=chip_id Pad=pad Chip=chip"),
        [typeof(KvmIoapicState)] = ("struct kvm_ioapic_state", "BaseAddress=base_address Ioregsel=ioregsel Id=id Irr=irr Pad=pad Redirtbl=redirtbl"),
        [typeof(KvmPitConfig)] = ("struct kvm_pit_config", "Flags=flags Pad=pad"),
        [typeof(KvmPitState2)] = ("struct kvm_pit_state2", "Channels=channels Flags=flags Reserved=reserved"),
        [typeof(KvmClockData)] = (
            "struct kvm_clock_data",
            "Clock=clock Flags=flags Pad0=pad0 Realtime=realtime HostTsc=host_tsc Pad=pad"),
        [typeof(KvmMsrList)] = ("struct all_indices", "NMsrs=header.nmsrs Indices=indices"),
        [typeof(KvmAllMsrs)] = ("struct all_msrs", "NMsrs=header.nmsrs Pad=header.pad Entries=entries"),
        [typeof(KvmCpuid2)] = ("struct all_cpuid", "Nent=header.nent Padding=header.padding Entries=entries"),
        [typeof(SignalActionArgument)] = (
            "struct sigaction",
            "Handler=sa_handler Mask=sa_mask Flags=sa_flags Restorer=sa_restorer"),
        [typeof(SleepDuration)] = ("struct timespec", "Seconds=tv_sec Nanoseconds=tv_nsec"),
        [typeof(UserFaultApi)] = ("struct uffdio_api", "Api=api Features=features Ioctls=ioctls"),
        [typeof(UserFaultRange)] = ("struct uffdio_range", "Start=start Length=len"),
        [typeof(UserFaultRegister)] = ("struct uffdio_register", "Start=range.start Length=range.len Mode=mode Ioctls=ioctls"),
        [typeof(UserFaultCopy)] = ("struct uffdio_copy", "Destination=dst Source=src Length=len Mode=mode Copied=copy"),
        [typeof(FileStatus)] = (
            "struct statx",
            "Inode=stx_ino Size=stx_size ChangeSeconds=stx_ctime.tv_sec ChangeNanoseconds=stx_ctime.tv_nsec DeviceMajor=stx_dev_major "
            + "DeviceMinor=stx_dev_minor"),
    };

    /// <summary>What C has no type for: a header that ends with a flexible array, and as many elements as there is room for.</summary>
    private static readonly string FlexibleStructures = string.Create(CultureInfo.InvariantCulture, $$"""
        struct two_msrs { struct kvm_msrs header; struct kvm_msr_entry first, second; };
        struct all_cpuid { struct kvm_cpuid2 header; struct kvm_cpuid_entry2 entries[{{KvmCpuid2.Capacity}}]; };
        struct all_msrs { struct kvm_msrs header; struct kvm_msr_entry entries[{{KvmAllMsrs.Capacity}}]; };
        struct all_indices { struct kvm_msr_list header; __u32 indices[{{KvmMsrList.Capacity}}]; };
        _Static_assert(offsetof(struct all_msrs, entries) == offsetof(struct kvm_msrs, entries), "entries of kvm_msrs");
        _Static_assert(offsetof(struct all_indices, indices) == offsetof(struct kvm_msr_list, indices), "indices of kvm_msr_list");
        _Static_assert(offsetof(struct two_msrs, first) == offsetof(struct kvm_msrs, entries), "entries of kvm_msrs");
        _Static_assert(offsetof(struct all_cpuid, entries) == offsetof(struct kvm_cpuid2, entries), "entries of kvm_cpuid2");

        """);

    /// <summary>The C expressions of constants.</summary>
    private static readonly Dictionary<Type, string> Constants = new()
    {
        [typeof(KvmConstants)] =
            "ApiVersion=KVM_API_VERSION GetApiVersion=KVM_GET_API_VERSION CreateVm=KVM_CREATE_VM CheckExtension=KVM_CHECK_EXTENSION "
            + "GetVcpuMmapSize=KVM_GET_VCPU_MMAP_SIZE GetSupportedCpuid=KVM_GET_SUPPORTED_CPUID CreateVcpu=KVM_CREATE_VCPU "
            + "GetDirtyLog=KVM_GET_DIRTY_LOG SetUserMemoryRegion=KVM_SET_USER_MEMORY_REGION Run=KVM_RUN GetRegs=KVM_GET_REGS "
            + "SetRegs=KVM_SET_REGS GetSregs=KVM_GET_SREGS SetSregs=KVM_SET_SREGS GetMsrs=KVM_GET_MSRS SetMsrs=KVM_SET_MSRS "
            + "SetCpuid2=KVM_SET_CPUID2 Nmi=KVM_NMI GetVcpuEvents=KVM_GET_VCPU_EVENTS SetVcpuEvents=KVM_SET_VCPU_EVENTS "
            + "GetDebugregs=KVM_GET_DEBUGREGS SetDebugregs=KVM_SET_DEBUGREGS EnableCap=KVM_ENABLE_CAP GetTscKhz=KVM_GET_TSC_KHZ SetTscKhz=KVM_SET_TSC_KHZ CapTscControl=KVM_CAP_TSC_CONTROL "
            + "GetXsave=KVM_GET_XSAVE SetXsave=KVM_SET_XSAVE GetXcrs=KVM_GET_XCRS SetXcrs=KVM_SET_XCRS ClearDirtyLog=KVM_CLEAR_DIRTY_LOG "
            + "CapUserMemory=KVM_CAP_USER_MEMORY CapMaxVcpus=KVM_CAP_MAX_VCPUS CapVcpuEvents=KVM_CAP_VCPU_EVENTS "
            + "CapDebugregs=KVM_CAP_DEBUGREGS CapXsave=KVM_CAP_XSAVE CapXcrs=KVM_CAP_XCRS CapSyncRegs=KVM_CAP_SYNC_REGS CapImmediateExit=KVM_CAP_IMMEDIATE_EXIT "
            + "SyncRegs=KVM_SYNC_X86_REGS SyncSregs=KVM_SYNC_X86_SREGS SyncEvents=KVM_SYNC_X86_EVENTS "
            + "SetTssAddr=KVM_SET_TSS_ADDR SetIdentityMapAddr=KVM_SET_IDENTITY_MAP_ADDR CreateIrqchip=KVM_CREATE_IRQCHIP IrqLine=KVM_IRQ_LINE "
            + "GetMsrIndexList=KVM_GET_MSR_INDEX_LIST GetIrqchip=KVM_GET_IRQCHIP SetIrqchip=KVM_SET_IRQCHIP IrqchipIoapic=KVM_IRQCHIP_IOAPIC SetClock=KVM_SET_CLOCK "
            + "CreatePit2=KVM_CREATE_PIT2 GetPit2=KVM_GET_PIT2 SetPit2=KVM_SET_PIT2 PitSpeakerDummy=KVM_PIT_SPEAKER_DUMMY "
            + "GetClock=KVM_GET_CLOCK GetLapic=KVM_GET_LAPIC SetLapic=KVM_SET_LAPIC GetMpState=KVM_GET_MP_STATE SetMpState=KVM_SET_MP_STATE "
            + "KvmclockCtrl=KVM_KVMCLOCK_CTRL CapTscDeadlineTimer=KVM_CAP_TSC_DEADLINE_TIMER ExitIoOut=KVM_EXIT_IO_OUT "
            + "CapManualDirtyLogProtect2=KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 MemLogDirtyPages=KVM_MEM_LOG_DIRTY_PAGES "
            + "DirtyLogManualProtectEnable=KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE ExitUnknown=KVM_EXIT_UNKNOWN ExitIo=KVM_EXIT_IO "
            + "ExitHlt=KVM_EXIT_HLT ExitMmio=KVM_EXIT_MMIO ExitShutdown=KVM_EXIT_SHUTDOWN ExitFailEntry=KVM_EXIT_FAIL_ENTRY "
            + "ExitIntr=KVM_EXIT_INTR ExitInternalError=KVM_EXIT_INTERNAL_ERROR InternalErrorEmulation=KVM_INTERNAL_ERROR_EMULATION",
        [typeof(KvmRunPage)] =
            "ImmediateExitOffset=offsetof(struct_kvm_run,immediate_exit) ExitReasonOffset=offsetof(struct_kvm_run,exit_reason) "
            + "MmioAddressOffset=offsetof(struct_kvm_run,mmio.phys_addr) MmioDataOffset=offsetof(struct_kvm_run,mmio.data) "
            + "MmioLengthOffset=offsetof(struct_kvm_run,mmio.len) MmioIsWriteOffset=offsetof(struct_kvm_run,mmio.is_write) "
            + "IoDirectionOffset=offsetof(struct_kvm_run,io.direction) IoSizeOffset=offsetof(struct_kvm_run,io.size) "
            + "IoPortOffset=offsetof(struct_kvm_run,io.port) IoCountOffset=offsetof(struct_kvm_run,io.count) "
            + "IoDataOffsetOffset=offsetof(struct_kvm_run,io.data_offset) "
            + "InternalSuberrorOffset=offsetof(struct_kvm_run,internal.suberror) "
            + "FailEntryReasonOffset=offsetof(struct_kvm_run,fail_entry.hardware_entry_failure_reason) "
            + "ValidRegistersOffset=offsetof(struct_kvm_run,kvm_valid_regs) DirtyRegistersOffset=offsetof(struct_kvm_run,kvm_dirty_regs) "
            + "RegistersOffset=offsetof(struct_kvm_run,s.regs) AllRegisters=KVM_SYNC_X86_VALID_FIELDS "
            + "MmioDataCapacity=sizeof(((struct_kvm_run*)0)->mmio.data)",
        [typeof(Libc)] =
            "OpenReadWrite=O_RDWR OpenCloseOnExec=O_CLOEXEC ProtectionNone=PROT_NONE ProtectionRead=PROT_READ ProtectionWrite=PROT_WRITE "
            + "MapShared=MAP_SHARED MapPrivate=MAP_PRIVATE MapFixed=MAP_FIXED MapAnonymous=MAP_ANONYMOUS MapNoReserve=MAP_NORESERVE MapPopulate=MAP_POPULATE "
            + "AdviseHugePage=MADV_HUGEPAGE AdviseDontDump=MADV_DONTDUMP ClockThreadCpuTime=CLOCK_THREAD_CPUTIME_ID MemfdCloseOnExec=MFD_CLOEXEC MemfdAllowSealing=MFD_ALLOW_SEALING AddSeals=F_ADD_SEALS "
            + "SealSeal=F_SEAL_SEAL SealShrink=F_SEAL_SHRINK SealGrow=F_SEAL_GROW SealFutureWrite=F_SEAL_FUTURE_WRITE ErrnoInterrupted=EINTR "
            + "ErrnoAgain=EAGAIN ErrnoInvalid=EINVAL ErrnoNoMemory=ENOMEM OpenReadOnly=O_RDONLY OpenWriteOnly=O_WRONLY OpenCreate=O_CREAT OpenTruncate=O_TRUNC "
            + "OpenDirectory=O_DIRECTORY OpenDirect=O_DIRECT SyncFileRangeWaitBefore=SYNC_FILE_RANGE_WAIT_BEFORE SyncFileRangeWrite=SYNC_FILE_RANGE_WRITE SyncFileRangeWaitAfter=SYNC_FILE_RANGE_WAIT_AFTER LockExclusive=LOCK_EX LockNonBlocking=LOCK_NB AtEmptyPath=AT_EMPTY_PATH StatxBasicStats=STATX_BASIC_STATS "
            + "ErrnoNoEntry=ENOENT ErrnoInputOutput=EIO ErrnoAccess=EACCES ErrnoExists=EEXIST ErrnoNoSpace=ENOSPC ErrnoQuota=EDQUOT",
        [typeof(UserFaultConstants)] =
            "SystemCall=SYS_userfaultfd UserModeOnly=UFFD_USER_MODE_ONLY ApiVersion=UFFD_API Api=UFFDIO_API Register=UFFDIO_REGISTER "
            + "Unregister=UFFDIO_UNREGISTER Copy=UFFDIO_COPY RegisterModeMissing=UFFDIO_REGISTER_MODE_MISSING "
            + "CopyModeDontWake=UFFDIO_COPY_MODE_DONTWAKE",
        [typeof(PlatformDevice)] = "ErrnoBadAddress=EFAULT ErrnoBusy=EBUSY ErrnoInvalidArgument=EINVAL ErrnoNotImplemented=ENOSYS",
        [typeof(FaultDevice)] =
            "ErrnoNoMemory=ENOMEM ErrnoAccess=EACCES ErrnoBadAddress=EFAULT ErrnoTimedOut=ETIMEDOUT ErrnoNotRecoverable=ENOTRECOVERABLE",
    };

    [Fact]
    public void Every_structure_for_the_kernel_is_compared()
    {
        Type[] structures = [.. typeof(KvmConstants).Assembly.GetTypes()
            .Where(type => type is { IsValueType: true, IsNested: false, IsEnum: false } && string.Equals(type.Namespace, typeof(KvmConstants).Namespace, StringComparison.Ordinal))];

        Assert.Equal(
            structures.Select(type => type.Name).Order(StringComparer.Ordinal),
            Structures.Keys.Select(type => type.Name).Order(StringComparer.Ordinal));
    }

    [ContractFact]
    public async Task Structures_are_those_of_the_headers()
    {
        Expectations expectations = new(Includes + FlexibleStructures);
        foreach ((Type type, (string cType, string names)) in Structures)
        {
            Dictionary<string, string> table = ParseTable(names);
            FieldInfo[] fields = type.GetFields(BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic);
            AssertSameNames(type, fields.Select(field => field.Name), table.Keys);
            expectations.Add($"sizeof {type.Name}", $"sizeof({cType})", SizeOf(type));
            foreach (FieldInfo field in fields)
            {
                string cField = table[field.Name];
                expectations.Add($"offset of {type.Name}.{field.Name}", $"offsetof({cType}, {cField})", OffsetOf(type, field));
                expectations.Add($"size of {type.Name}.{field.Name}", $"sizeof((({cType} *)0)->{cField})", SizeOf(field.FieldType));
            }
        }

        await expectations.VerifyAsync();
    }

    [ContractFact]
    public async Task Constants_are_those_of_the_headers()
    {
        Expectations expectations = new(Includes + "typedef struct kvm_run struct_kvm_run;\n");
        foreach ((Type type, string names) in Constants)
        {
            // Of the devices, only what stands in a header is compared: the rest is this project's own.
            bool onlyErrors = type == typeof(PlatformDevice) || type == typeof(FaultDevice);
            FieldInfo[] constants = [.. type.GetFields(Members).Where(field => field.IsLiteral
                && field.FieldType != typeof(string)
                && (!onlyErrors || field.Name.StartsWith("Errno", StringComparison.Ordinal)))];
            AddConstants(expectations, type, constants, ParseTable(names));
        }

        await expectations.VerifyAsync();
    }

    private static void AddConstants(Expectations expectations, Type type, FieldInfo[] constants, Dictionary<string, string> table)
    {
        FieldInfo[] all = [.. constants.Concat(type.GetFields(Members).Where(field => field.FieldType == typeof(nuint) && field.IsStatic))
            .DistinctBy(field => field.Name)];
        AssertSameNames(type, all.Select(field => field.Name), table.Keys);
        foreach (FieldInfo constant in all)
        {
            object value = constant.GetValue(null)!;
            ulong number = value is nuint native ? native : Convert.ToUInt64(value, CultureInfo.InvariantCulture);
            expectations.Add($"{type.Name}.{constant.Name}", table[constant.Name], number);
        }
    }

    private static void AssertSameNames(Type type, IEnumerable<string> inCode, IEnumerable<string> inTable)
    {
        string[] code = [.. inCode];
        string[] table = [.. inTable];
        Assert.True(
            code.Length > 0 && code.Order(StringComparer.Ordinal).SequenceEqual(table.Order(StringComparer.Ordinal), StringComparer.Ordinal),
            $"The names of {type.Name} are not those of the table. Only in the code: {string.Join(", ", code.Except(table, StringComparer.Ordinal))}. "
            + $"Only in the table: {string.Join(", ", table.Except(code, StringComparer.Ordinal))}.");
    }

    private static Dictionary<string, string> ParseTable(string names) => names.Split(' ', StringSplitOptions.RemoveEmptyEntries)
        .Select(entry => entry.Split('=', 2))
        .ToDictionary(pair => pair[0], pair => pair[1], StringComparer.Ordinal);

    private static ulong SizeOf(Type type)
    {
        DynamicMethod method = new($"SizeOf{type.Name}", typeof(ulong), [], typeof(LayoutTests).Module, skipVisibility: true);
        ILGenerator il = method.GetILGenerator();
        il.Emit(OpCodes.Sizeof, type);
        il.Emit(OpCodes.Conv_U8);
        il.Emit(OpCodes.Ret);
        return method.CreateDelegate<Func<ulong>>()();
    }

    /// <summary>The distance between the address of a field and that of its structure.</summary>
    private static ulong OffsetOf(Type type, FieldInfo field)
    {
        DynamicMethod method = new($"OffsetOf{field.Name}", typeof(ulong), [], typeof(LayoutTests).Module, skipVisibility: true);
        ILGenerator il = method.GetILGenerator();
        LocalBuilder local = il.DeclareLocal(type);
        il.Emit(OpCodes.Ldloca, local);
        il.Emit(OpCodes.Ldflda, field);
        il.Emit(OpCodes.Conv_U);
        il.Emit(OpCodes.Ldloca, local);
        il.Emit(OpCodes.Conv_U);
        il.Emit(OpCodes.Sub);
        il.Emit(OpCodes.Conv_U8);
        il.Emit(OpCodes.Ret);
        return method.CreateDelegate<Func<ulong>>()();
    }

    /// <summary>Numbers of C#, and the expressions of C that must give the same.</summary>
    private sealed class Expectations(string prologue)
    {
        private readonly List<(string Name, ulong Value)> _expected = [];
        private readonly StringBuilder _program = new(prologue + "int main(void)\n{\n");

        internal void Add(string name, string expression, ulong value)
        {
            _expected.Add((name, value));
            _program.Append(CultureInfo.InvariantCulture, $"    printf(\"%llu\\n\", (unsigned long long)({expression}));\n");
        }

        internal async Task VerifyAsync()
        {
            string[] lines = (await CCompiler.RunAsync(_program + "    return 0;\n}\n")).Split('\n', StringSplitOptions.RemoveEmptyEntries);
            Assert.Equal(_expected.Count, lines.Length);
            string[] wrong = [.. _expected.Zip(lines)
                .Where(pair => ulong.Parse(pair.Second, CultureInfo.InvariantCulture) != pair.First.Value)
                .Select(pair => $"{pair.First.Name} is {pair.First.Value} in C#, {pair.Second} in C")];
            Assert.True(wrong.Length == 0, string.Join('\n', wrong));
        }
    }
}
