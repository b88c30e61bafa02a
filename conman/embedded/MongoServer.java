import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.bson.Document;
import io.netty.channel.Channel;
import java.net.InetSocketAddress;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.ReadWriteLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import org.h2.mvstore.MVStore;

/**
 * The embedded database: MongoDB's wire protocol over one H2 MVStore file, durable against kill -9.
 *
 * Arguments: HOST PORT FILE. Exits 0 after SIGTERM with everything flushed; 1 when the store can't go on.
 */
public final class MongoServer {
    private static final int COMPACT_BELOW_FILL_RATE = 60;
    private static final int COMPACT_BYTES = 8 * 1024 * 1024;
    private static final int WORKER_THREADS = 16;

    /** Commands that leave the store as it is; every other one is committed before its reply. */
    private static final Set<String> READS = Set.of(
        "find", "getmore", "killcursors", "count", "distinct", "hello", "ismaster", "ping", "buildinfo",
        "listdatabases", "listcollections", "listindexes", "serverstatus", "connectionstatus", "endsessions",
        "getparameter", "getlog", "hostinfo", "whatsmyuri", "dbstats", "collstats", "validate");

    /** PyMongo refuses servers below wire version 8; 13 is what MongoDB 5.0 reports. */
    private static final MongoVersion VERSION = new MongoVersion() {
        @Override public List<Integer> getVersionArray() { return List.of(5, 0, 0, 0); }
        @Override public int getWireVersion() { return 13; }
    };

    /** Commits each write before its reply; concurrent writes share one commit, and none is ever half in the file. */
    private static final class DurableBackend extends H2Backend {
        private final MVStore store;
        /** Commands hold the read side while they change maps, a commit holds the write side. */
        private final ReadWriteLock changing = new ReentrantReadWriteLock(true);
        private final AtomicLong finished = new AtomicLong();
        private volatile long committed;

        DurableBackend(MVStore store) {
            super(store);
            this.store = store;
            version(VERSION);
        }

        @Override public Document handleCommand(Channel channel, String database, String command, Document query) {
            if (READS.contains(command.toLowerCase(Locale.ROOT))) {
                return super.handleCommand(channel, database, command, query);
            }
            long ticket = 0;
            changing.readLock().lock();
            try {
                return super.handleCommand(channel, database, command, query);
            } finally {
                // Also after a refusal: a batch that failed half-way keeps what came before, as in MongoDB.
                ticket = finished.incrementAndGet();
                changing.readLock().unlock();
                commitUpTo(ticket);
            }
        }

        private void commitUpTo(long ticket) {
            if (committed >= ticket) {
                return;
            }
            changing.writeLock().lock();
            try {
                if (committed < ticket) {
                    long covers = finished.get();
                    store.commit();
                    committed = covers;
                }
            } catch (Throwable failure) {
                die("can't commit", failure);
            } finally {
                changing.writeLock().unlock();
            }
        }

        /** Gives the space of superseded versions back; it commits too, so it must not meet a half-done command. */
        void tidy() {
            changing.writeLock().lock();
            try {
                store.compact(COMPACT_BELOW_FILL_RATE, COMPACT_BYTES);
            } finally {
                changing.writeLock().unlock();
            }
            store.sync();
        }

        /** Lets running commands finish and commit, then closes the file; later commands find the lock taken. */
        void shutdown() {
            changing.writeLock().lock();
            close();
        }
    }

    public static void main(String[] arguments) {
        String host = arguments[0];
        int port = Integer.parseInt(arguments[1]);
        MVStore store = new MVStore.Builder().fileName(arguments[2]).autoCommitDisabled().open();
        store.setVersionsToKeep(0);
        store.setRetentionTime(1000);
        DurableBackend backend = new DurableBackend(store);
        de.bwaldvogel.mongo.MongoServer server = new de.bwaldvogel.mongo.MongoServer(backend);
        server.bind(new InetSocketAddress(host, port), 1, WORKER_THREADS);

        Thread tidier = new Thread(() -> {
            while (!store.isClosed()) {
                try {
                    Thread.sleep(1000);
                    backend.tidy();
                } catch (InterruptedException stopped) {
                    return;
                } catch (Throwable failure) {
                    if (!store.isClosed()) {
                        die("can't compact", failure);
                    }
                }
            }
        }, "tidier");
        tidier.setDaemon(true);
        tidier.start();

        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            server.stopListening();
            backend.shutdown();
            System.err.println("closed");
        }));
        System.err.println("listening on " + host + ":" + port);
    }

    /** A store that failed once refuses everything after; whoever watches this process starts it anew. */
    private static void die(String what, Throwable failure) {
        System.err.println(what + ": " + failure);
        failure.printStackTrace();
        Runtime.getRuntime().halt(1);
    }
}
