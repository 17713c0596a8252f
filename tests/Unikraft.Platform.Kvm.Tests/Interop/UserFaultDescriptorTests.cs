using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Interop;

public sealed class UserFaultDescriptorTests : KvmTest
{
    [ContractTheory]
    [InlineData(0)]
    [InlineData(3)]
    [InlineData(7)]
    public void A_copy_goes_as_far_as_the_first_page_that_is_there_already(int present)
    {
        const int Length = 8 << PageSize.Shift;
        using GuestMemory source = new(Length);
        using GuestMemory target = new(Length);
        source.Slice(0, Length).Fill(7);
        target.Write((long)present << PageSize.Shift, (byte)1);
        using UserFaultDescriptor? faults = UserFaultDescriptor.TryOpen();
        Assert.NotNull(faults);
        Assert.True(faults.TryRegister(target.DangerousGetHandle(), Length));
        bool isCopied = faults.TryCopy(target.DangerousGetHandle(), source.DangerousGetHandle(), Length, out int done);
        faults.Unregister(target.DangerousGetHandle(), Length);

        Assert.True(isCopied);
        Assert.Equal(present << PageSize.Shift, done);
        Assert.Equal(-1, target.Read(0, done).IndexOfAnyExcept((byte)7));
        Assert.Equal(1, target.Read<byte>(done));
        Assert.Equal(0, target.Read<byte>(done + 1));
    }
}
