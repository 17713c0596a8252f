namespace Unikraft.Platform.Abstractions.Tests;

public sealed class GuestFaultTests
{
    [Fact]
    public void A_page_fault_tells_what_was_accessed() =>
        Assert.Equal(
            "#PF at 0x100234 accessing 0xdead000 (error 0x6) on vCPU 1",
            new GuestFault(1, 14, 6, 0x100234, 0x200000, 0xdead000).ToString());

    [Theory]
    [InlineData(0, "#DE")]
    [InlineData(1, "#DB")]
    [InlineData(2, "NMI")]
    [InlineData(3, "#BP")]
    [InlineData(4, "#OF")]
    [InlineData(5, "#BR")]
    [InlineData(6, "#UD")]
    [InlineData(7, "#NM")]
    [InlineData(8, "#DF")]
    [InlineData(10, "#TS")]
    [InlineData(11, "#NP")]
    [InlineData(12, "#SS")]
    [InlineData(13, "#GP")]
    [InlineData(14, "#PF")]
    [InlineData(16, "#MF")]
    [InlineData(17, "#AC")]
    [InlineData(18, "#MC")]
    [InlineData(19, "#XM")]
    [InlineData(21, "#CP")]
    [InlineData(30, "exception 30")]
    public void Every_exception_has_its_mnemonic(int vector, string name) =>
        Assert.Equal($"{name} at 0x100000 (error 0x0) on vCPU 0", new GuestFault(0, vector, 0, 0x100000, 0, null).ToString());
}
