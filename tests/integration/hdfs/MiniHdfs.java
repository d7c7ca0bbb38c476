import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.security.PrivilegedExceptionAction;
import java.util.ArrayList;
import java.util.List;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.hdfs.DistributedFileSystem;
import org.apache.hadoop.hdfs.MiniDFSCluster;
import org.apache.hadoop.hdfs.MiniDFSNNTopology;
import org.apache.hadoop.minikdc.MiniKdc;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.security.token.Token;

/**
 * A whole HDFS in one process, on loopback: {@code java MiniHdfs.java FOLDER plain|kerberos}.
 *
 * plain: two name nodes of one name service (the first active) and two data nodes, everybody is believed.
 * kerberos: one of each behind a Kerberos of its own; who reads needs a delegation token.
 *
 * Once it is up, and after each command (a line on standard input), it says a line of JSON. The end of
 * standard input ends it.
 */
public class MiniHdfs {
    private static final int BLOCK = 1 << 20;

    private final File folder;
    private final Configuration conf = new Configuration();
    private MiniKdc kdc;
    private File keytab;
    private MiniDFSCluster cluster;
    private int active = 0;

    private MiniHdfs(File folder) {
        this.folder = folder;
        conf.set("hdfs.minidfs.basedir", folder.getPath());
        conf.setLong("dfs.blocksize", BLOCK);
        conf.setInt("dfs.ls.limit", 7); // so that listing a folder takes several calls
        conf.setLong("dfs.client.retry.window.base", 10);
    }

    public static void main(String[] arguments) {
        try {
            File folder = new File(arguments[0]).getAbsoluteFile();
            folder.mkdirs();
            new MiniHdfs(folder).run(arguments[1].equals("kerberos"));
        } catch (Exception error) {
            error.printStackTrace();
            System.exit(1); // other threads would go on
        }
        System.exit(0);
    }

    private void run(boolean secure) throws Exception {
        if (secure) {
            startSecure();
        } else {
            startPlain();
        }
        tell("");
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            obey(line.trim().split(" "));
        }
    }

    private void startPlain() throws Exception {
        cluster = new MiniDFSCluster.Builder(conf)
            .nnTopology(MiniDFSNNTopology.simpleHATopology()).numDataNodes(2).format(true).build();
        cluster.waitActive();
        cluster.transitionToActive(0);
    }

    private void startSecure() throws Exception {
        kdc = new MiniKdc(MiniKdc.createConf(), folder);
        kdc.start();
        keytab = new File(folder, "keytab");
        kdc.createPrincipal(keytab, "hdfs/localhost", "HTTP/localhost", "alice", "bob");
        String hdfs = principal("hdfs/localhost");
        String http = principal("HTTP/localhost");
        conf.set("hadoop.security.authentication", "kerberos");
        conf.set("hadoop.security.auth_to_local", "RULE:[1:$1]\nRULE:[2:$1]\nDEFAULT");
        for (String node : List.of("namenode", "datanode")) {
            conf.set("dfs." + node + ".kerberos.principal", hdfs);
            conf.set("dfs." + node + ".keytab.file", keytab.getPath());
        }
        for (String place : List.of("dfs.web.authentication", "hadoop.http.authentication")) {
            conf.set(place + ".type", "kerberos");
            conf.set(place + ".kerberos.principal", http);
            conf.set(place + ".kerberos.keytab", keytab.getPath());
        }
        conf.setBoolean("hadoop.http.authentication.simple.anonymous.allowed", false);
        conf.setBoolean("dfs.block.access.token.enable", true);
        conf.setBoolean("ignore.secure.ports.for.testing", true);
        UserGroupInformation.setConfiguration(conf);
        UserGroupInformation.loginUserFromKeytab(hdfs, keytab.getPath());
        cluster = new MiniDFSCluster.Builder(conf).numDataNodes(1).format(true).build();
        cluster.waitActive();
    }

    private String principal(String name) {
        return name + "@" + kdc.getRealm();
    }

    private void obey(String[] words) throws Exception {
        String answer = "";
        switch (words[0]) {
            case "failover":
                cluster.transitionToStandby(active);
                active = 1 - active;
                cluster.transitionToActive(active);
                break;
            case "token": // of a user
                answer = token(words[1]);
                break;
            case "cancel": // a user's token
                cancel(words[1], words[2]);
                break;
            case "stop-datanode":
                cluster.stopDataNode(0);
                break;
            default:
                throw new IllegalArgumentException(words[0]);
        }
        tell(answer);
    }

    private UserGroupInformation login(String user) throws Exception {
        return UserGroupInformation.loginUserFromKeytabAndReturnUGI(principal(user), keytab.getPath());
    }

    private String token(String user) throws Exception {
        Token<?> token = login(user).doAs((PrivilegedExceptionAction<Token<?>>) () ->
            ((DistributedFileSystem) FileSystem.newInstance(cluster.getConfiguration(0))).getDelegationToken(user));
        return token.encodeToUrlString();
    }

    private void cancel(String user, String text) throws Exception {
        Token<?> token = new Token<>();
        token.decodeFromUrlString(text);
        login(user).doAs((PrivilegedExceptionAction<Void>) () -> {
            token.cancel(cluster.getConfiguration(0));
            return null;
        });
    }

    private void tell(String answer) {
        List<String> namenodes = new ArrayList<>();
        for (int i = 0; i < cluster.getNumNameNodes(); i++) {
            namenodes.add("\"127.0.0.1:" + cluster.getNameNode(i).getHttpAddress().getPort() + "\"");
        }
        int rpc = cluster.getNameNode(0).getNameNodeAddress().getPort();
        System.out.println("{\"namenodes\": [" + String.join(", ", namenodes) + "], \"rpc\": " + rpc
            + ", \"active\": " + active + ", \"answer\": \"" + answer + "\"}");
        System.out.flush();
    }
}
