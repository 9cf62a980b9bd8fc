import io.grpc.CallOptions;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollDomainSocketChannel;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollEventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.unix.DomainSocketAddress;
import io.grpc.stub.ClientCalls;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.util.concurrent.TimeUnit;

/** Calls a server with 1,000 different deadlines, at each address given, with messages made by hand. */
public final class Client {
  private static final class Bytes implements MethodDescriptor.Marshaller<byte[]> {
    @Override
    public InputStream stream(byte[] value) {
      return new ByteArrayInputStream(value);
    }

    @Override
    public byte[] parse(InputStream stream) {
      try {
        return stream.readAllBytes();
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
    }
  }

  private static MethodDescriptor<byte[], byte[]> method(String name) {
    return MethodDescriptor.<byte[], byte[]>newBuilder()
        .setType(MethodDescriptor.MethodType.UNARY)
        .setFullMethodName("ebb.v1.CacheService/" + name)
        .setRequestMarshaller(new Bytes())
        .setResponseMarshaller(new Bytes())
        .build();
  }

  public static void main(String[] addresses) throws InterruptedException {
    var group = new EpollEventLoopGroup(1);
    for (String address : addresses) {
      SocketAddress socket;
      if (address.startsWith("unix:")) {
        socket = new DomainSocketAddress(address.substring("unix:".length()));
      } else {
        var parts = address.split(":");
        socket = new InetSocketAddress(parts[0], Integer.parseInt(parts[1]));
      }
      var builder = NettyChannelBuilder.forAddress(socket).usePlaintext().eventLoopGroup(group);
      builder =
          address.startsWith("unix:")
              // As the resolver of unix: addresses does.
              ? builder.channelType(EpollDomainSocketChannel.class).overrideAuthority(encoded(address))
              : builder.channelType(
                  io.grpc.netty.shaded.io.netty.channel.epoll.EpollSocketChannel.class);
      ManagedChannel channel = builder.build();
      byte[] set = {0x0a, 1, 'k', 0x12, 1, 'v'};
      ClientCalls.blockingUnaryCall(channel, method("Set"), CallOptions.DEFAULT, set);
      byte[] get = {0x0a, 1, 'k'};
      for (int seconds = 1; seconds <= 1_000; seconds++) {
        var options = CallOptions.DEFAULT.withDeadlineAfter(seconds, TimeUnit.SECONDS);
        byte[] found = ClientCalls.blockingUnaryCall(channel, method("Get"), options, get);
        // OUTCOME_HIT, then a value of one byte.
        if (found.length < 5 || found[1] != 1 || found[4] != 'v') {
          throw new AssertionError("call " + seconds + " did not find the value");
        }
      }
      System.out.println(address + ": 1,000 calls with 1,000 deadlines");
      channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
    }
    group.shutdownGracefully();
  }

  /** The path as an authority, percent-encoded. */
  private static String encoded(String address) {
    return address.substring("unix:".length()).replace("/", "%2F");
  }
}
