/* A library for LD_PRELOAD that journals what a process does to the files under a directory: each call that opens, writes,
 * truncates, syncs, renames, links, unlinks or makes a directory, with its bytes, in the order in which the calls were made.
 * `journal.rs` reads it.
 *
 *   JOURNAL_FILE   where it is appended to: several processes may share one, one after the other, and others add marks
 *   JOURNAL_ROOT   the directory, as an absolute path without symbolic links
 *
 * All calls but syncs are made under one lock, together with their record. A sync has a record before it and one after: while
 * it runs, other calls go on. A call whose effect could not be told from its record ends the process with a message.
 *
 * SIGUSR2 ends the process as SIGKILL does, but between two calls: no call is made whose record is missing.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

enum kind {
    START = 1,  /* a process begins: it has no open files */
    OPEN,       /* path, fd, flags */
    CLOSE,      /* fd */
    DUP,        /* fd, other: the new one */
    WRITE,      /* fd, offset, bytes */
    ZERO,       /* fd, offset, length: as WRITE, of zeros */
    TRUNCATE,   /* path, or fd; length */
    ALLOCATE,   /* fd, length: the file is at least so long */
    SYNC_BEGIN, /* fd, call */
    SYNC_END,   /* call; it has succeeded */
    RENAME,     /* path, target */
    LINK,       /* path, target */
    UNLINK,     /* path, also of an empty directory */
    MKDIR,      /* path */
    SOCKET,     /* path */
};

/* What stands before the paths and bytes of each record, in the processor's byte order. */
struct record {
    uint32_t size_bytes; /* of all of it */
    uint16_t kind;
    uint16_t path_bytes;
    uint16_t target_bytes;
    uint16_t unused;
    int32_t fd;
    int64_t a; /* flags, the other fd, an offset or a call's number */
    int64_t b; /* a length */
};

#define FILES_MAX 65536

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;
static char root[PATH_MAX];
static volatile sig_atomic_t stops;
static int64_t calls;
/* Which file descriptors are of files under the directory. */
static volatile unsigned char is_ours[FILES_MAX];

/* The function of libc's that a function here stands before. */
#define REAL(name)                                                                                                           \
    static __typeof__(&name) real_##name;                                                                                     \
    if (real_##name == NULL) real_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static void give_up(const char *why, const char *what) {
    char line[PATH_MAX + 256];
    int length = snprintf(line, sizeof line, "journal: %s: %s\n", why, what);
    syscall(SYS_write, 2, line, (size_t)length);
    abort();
}

static void enter(void) {
    pthread_mutex_lock(&lock);
    if (stops) raise(SIGKILL);
}

static void leave(void) { pthread_mutex_unlock(&lock); }

static void on_stop(int signal_number) {
    (void)signal_number;
    stops = 1;
}

static int watches(int fd) { return fd >= 0 && fd < FILES_MAX && is_ours[fd]; }

static void append(struct record record, const char *path, const char *target, const struct iovec *bytes, int count) {
    struct iovec parts[IOV_MAX];
    int error = errno;
    size_t size_bytes = sizeof record;
    record.path_bytes = (uint16_t)(path ? strlen(path) : 0);
    record.target_bytes = (uint16_t)(target ? strlen(target) : 0);
    parts[0] = (struct iovec){&record, sizeof record};
    parts[1] = (struct iovec){(void *)path, record.path_bytes};
    parts[2] = (struct iovec){(void *)target, record.target_bytes};
    if (count > IOV_MAX - 3) give_up("too many pieces in one write", path ? path : "");
    for (int at = 0; at < count; at++) parts[3 + at] = bytes[at];
    for (int at = 1; at < 3 + count; at++) size_bytes += parts[at].iov_len;
    if (size_bytes > UINT32_MAX) give_up("too much in one write", path ? path : "");
    record.size_bytes = (uint32_t)size_bytes;
    if (syscall(SYS_writev, journal, parts, 3 + count) != (ssize_t)size_bytes) give_up("cannot write", strerror(errno));
    errno = error;
}

__attribute__((constructor)) static void start(void) {
    const char *file = getenv("JOURNAL_FILE"), *dir = getenv("JOURNAL_ROOT");
    if (file == NULL || dir == NULL || dir[0] != '/') give_up("needs JOURNAL_FILE and JOURNAL_ROOT", "");
    journal = (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (journal < 0) give_up("cannot open", file);
    snprintf(root, sizeof root, "%s/", dir);
    struct sigaction action = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    sigaction(SIGUSR2, &action, NULL);
    append((struct record){.kind = START}, NULL, NULL, NULL, 0);
}

/* The absolute path of a name as a call gives it, without dots. Whether it is under the directory. */
static int resolve(int dir, const char *name, char path[PATH_MAX]) {
    char whole[2 * PATH_MAX], link[64];
    ssize_t length = 0;
    int fd, used;
    if (name == NULL) return 0;
    if (sscanf(name, "/proc/self/fd/%d/%n", &fd, &used) == 1) {
        dir = fd;
        name += used;
    }
    if (name[0] != '/') {
        if (dir == AT_FDCWD) {
            snprintf(link, sizeof link, "/proc/self/cwd");
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        }
        length = readlink(link, whole, PATH_MAX - 1);
        if (length < 0) return 0;
    }
    snprintf(whole + length, sizeof whole - (size_t)length, "/%s", name);
    char *rest = whole, *part;
    size_t end = 0;
    path[0] = 0;
    while ((part = strtok_r(rest, "/", &rest)) != NULL) {
        if (strcmp(part, ".") == 0) continue;
        if (strcmp(part, "..") == 0) {
            while (end > 0 && path[--end] != '/') {}
            continue;
        }
        end += (size_t)snprintf(path + end, PATH_MAX - end, "/%s", part);
        if (end >= PATH_MAX) return 0;
    }
    path[end] = 0;
    /* The directory itself too. */
    size_t shared = strlen(root) - 1;
    return strncmp(path, root, shared) == 0 && (path[shared] == '/' || path[shared] == 0);
}

/* ---- opening and closing ---- */

static int open_at(int dir, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    if (!resolve(dir, name, path)) return (int)syscall(SYS_openat, dir, name, flags, mode);
    if ((flags & O_TMPFILE) == O_TMPFILE) give_up("a file without a name", path);
    if ((flags & O_DSYNC) != 0) give_up("a file whose writes are synced", path);
    enter();
    int fd = (int)syscall(SYS_openat, dir, name, flags, mode);
    if (fd >= FILES_MAX) give_up("too many open files", path);
    if (fd >= 0) {
        is_ours[fd] = 1;
        append((struct record){.kind = OPEN, .fd = fd, .a = flags}, path, NULL, NULL, 0);
    }
    leave();
    return fd;
}

#define OPEN_MODE(flags)                                                                                                     \
    mode_t mode = 0;                                                                                                         \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                                   \
        va_list rest;                                                                                                        \
        va_start(rest, flags);                                                                                               \
        mode = va_arg(rest, mode_t);                                                                                         \
        va_end(rest);                                                                                                        \
    }

int open(const char *name, int flags, ...) {
    OPEN_MODE(flags);
    return open_at(AT_FDCWD, name, flags, mode);
}

int open64(const char *name, int flags, ...) {
    OPEN_MODE(flags);
    return open_at(AT_FDCWD, name, flags, mode);
}

int openat(int dir, const char *name, int flags, ...) {
    OPEN_MODE(flags);
    return open_at(dir, name, flags, mode);
}

int openat64(int dir, const char *name, int flags, ...) {
    OPEN_MODE(flags);
    return open_at(dir, name, flags, mode);
}

int creat(const char *name, mode_t mode) { return open_at(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int creat64(const char *name, mode_t mode) { return creat(name, mode); }

FILE *fopen(const char *name, const char *mode) {
    REAL(fopen);
    char path[PATH_MAX];
    if (strcmp(mode, "r") != 0 && strcmp(mode, "re") != 0 && resolve(AT_FDCWD, name, path)) give_up("fopen", path);
    return real_fopen(name, mode);
}

FILE *fopen64(const char *name, const char *mode) { return fopen(name, mode); }

/* Before the call: its number may be another file's at once. */
static void forget(int fd) {
    if (watches(fd)) {
        enter();
        is_ours[fd] = 0;
        append((struct record){.kind = CLOSE, .fd = fd}, NULL, NULL, NULL, 0);
        leave();
    }
}

int close(int fd) {
    REAL(close);
    forget(fd);
    return real_close(fd);
}

int closedir(DIR *dir) {
    REAL(closedir);
    forget(dirfd(dir));
    return real_closedir(dir);
}

int close_range(unsigned first, unsigned last, int flags) {
    REAL(close_range);
    for (unsigned fd = first; fd <= last && fd < FILES_MAX; fd++) forget((int)fd);
    return real_close_range(first, last, flags);
}

static int after_dup(int fd, int other) {
    if (other >= 0 && watches(fd)) {
        if (other >= FILES_MAX) give_up("too many open files", "");
        enter();
        is_ours[other] = 1;
        append((struct record){.kind = DUP, .fd = fd, .a = other}, NULL, NULL, NULL, 0);
        leave();
    }
    return other;
}

int dup(int fd) {
    REAL(dup);
    return after_dup(fd, real_dup(fd));
}

int dup2(int fd, int other) {
    REAL(dup2);
    if (fd != other) forget(other);
    return after_dup(fd, real_dup2(fd, other));
}

int dup3(int fd, int other, int flags) {
    REAL(dup3);
    forget(other);
    return after_dup(fd, real_dup3(fd, other, flags));
}

int fcntl(int fd, int command, ...) {
    REAL(fcntl);
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    int result = real_fcntl(fd, command, argument);
    return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? after_dup(fd, result) : result;
}

int fcntl64(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    return fcntl(fd, command, argument);
}

/* ---- writing ---- */

static int is_zero(const char *bytes, size_t size_bytes) {
    return size_bytes > 0 && bytes[0] == 0 && memcmp(bytes, bytes + 1, size_bytes - 1) == 0;
}

/* What was written of the pieces; `offset` is below zero where the file's own position was used. */
static ssize_t after_write(int fd, const struct iovec *pieces, int count, off64_t offset, ssize_t written) {
    if (written <= 0) return written;
    int error = errno;
    if (offset < 0) offset = lseek64(fd, 0, SEEK_CUR) - written;
    errno = error;
    if (offset < 0) give_up("a write at no position", "");
    struct record record = {.kind = WRITE, .fd = fd, .a = offset, .b = written};
    if (count == 1 && is_zero(pieces[0].iov_base, (size_t)written)) {
        record.kind = ZERO;
        append(record, NULL, NULL, NULL, 0);
        return written;
    }
    struct iovec done[IOV_MAX];
    size_t rest = (size_t)written;
    int at = 0;
    for (; at < count && rest > 0; at++) {
        done[at] = pieces[at];
        if (done[at].iov_len > rest) done[at].iov_len = rest;
        rest -= done[at].iov_len;
    }
    append(record, NULL, NULL, done, at);
    return written;
}

ssize_t write(int fd, const void *bytes, size_t size_bytes) {
    REAL(write);
    if (!watches(fd)) return real_write(fd, bytes, size_bytes);
    struct iovec piece = {(void *)bytes, size_bytes};
    enter();
    ssize_t written = after_write(fd, &piece, 1, -1, real_write(fd, bytes, size_bytes));
    leave();
    return written;
}

ssize_t pwrite64(int fd, const void *bytes, size_t size_bytes, off64_t offset) {
    REAL(pwrite64);
    if (!watches(fd)) return real_pwrite64(fd, bytes, size_bytes, offset);
    struct iovec piece = {(void *)bytes, size_bytes};
    enter();
    ssize_t written = after_write(fd, &piece, 1, offset, real_pwrite64(fd, bytes, size_bytes, offset));
    leave();
    return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t size_bytes, off_t offset) {
    return pwrite64(fd, bytes, size_bytes, offset);
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
    REAL(writev);
    if (!watches(fd)) return real_writev(fd, pieces, count);
    enter();
    ssize_t written = after_write(fd, pieces, count, -1, real_writev(fd, pieces, count));
    leave();
    return written;
}

ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t offset) {
    REAL(pwritev64);
    if (!watches(fd)) return real_pwritev64(fd, pieces, count, offset);
    enter();
    ssize_t written = after_write(fd, pieces, count, offset, real_pwritev64(fd, pieces, count, offset));
    leave();
    return written;
}

ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset) {
    return pwritev64(fd, pieces, count, offset);
}

ssize_t pwritev64v2(int fd, const struct iovec *pieces, int count, off64_t offset, int flags) {
    REAL(pwritev64v2);
    if (watches(fd)) give_up("a write with flags", "pwritev2");
    return real_pwritev64v2(fd, pieces, count, offset, flags);
}

ssize_t pwritev2(int fd, const struct iovec *pieces, int count, off_t offset, int flags) {
    return pwritev64v2(fd, pieces, count, offset, flags);
}

/* Who is told that the kernel cannot copy does it by reads and writes. */
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t size_bytes, unsigned flags) {
    REAL(copy_file_range);
    if (!watches(out)) return real_copy_file_range(in, in_at, out, out_at, size_bytes, flags);
    errno = ENOSYS;
    return -1;
}

ssize_t sendfile64(int out, int in, off64_t *offset, size_t size_bytes) {
    REAL(sendfile64);
    if (!watches(out)) return real_sendfile64(out, in, offset, size_bytes);
    errno = ENOSYS;
    return -1;
}

ssize_t sendfile(int out, int in, off_t *offset, size_t size_bytes) { return sendfile64(out, in, offset, size_bytes); }

ssize_t splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t size_bytes, unsigned flags) {
    REAL(splice);
    if (!watches(out)) return real_splice(in, in_at, out, out_at, size_bytes, flags);
    errno = ENOSYS;
    return -1;
}

void *mmap64(void *address, size_t size_bytes, int protection, int flags, int fd, off64_t offset) {
    if ((flags & MAP_SHARED) && (protection & PROT_WRITE) && watches(fd)) give_up("a file mapped to be written", "mmap");
    return (void *)syscall(SYS_mmap, address, size_bytes, protection, flags, fd, offset);
}

void *mmap(void *address, size_t size_bytes, int protection, int flags, int fd, off_t offset) {
    return mmap64(address, size_bytes, protection, flags, fd, offset);
}

/* ---- lengths ---- */

int ftruncate64(int fd, off64_t length) {
    REAL(ftruncate64);
    if (!watches(fd)) return real_ftruncate64(fd, length);
    enter();
    int result = real_ftruncate64(fd, length);
    if (result == 0) append((struct record){.kind = TRUNCATE, .fd = fd, .b = length}, NULL, NULL, NULL, 0);
    leave();
    return result;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int truncate64(const char *name, off64_t length) {
    REAL(truncate64);
    char path[PATH_MAX];
    if (!resolve(AT_FDCWD, name, path)) return real_truncate64(name, length);
    enter();
    int result = real_truncate64(name, length);
    if (result == 0) append((struct record){.kind = TRUNCATE, .fd = -1, .b = length}, path, NULL, NULL, 0);
    leave();
    return result;
}

int truncate(const char *name, off_t length) { return truncate64(name, length); }

int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
    REAL(fallocate64);
    if (!watches(fd) || mode == FALLOC_FL_KEEP_SIZE) return real_fallocate64(fd, mode, offset, length);
    if (mode != 0) give_up("a mode that is not known here", "fallocate");
    enter();
    int result = real_fallocate64(fd, mode, offset, length);
    if (result == 0) append((struct record){.kind = ALLOCATE, .fd = fd, .b = offset + length}, NULL, NULL, NULL, 0);
    leave();
    return result;
}

int fallocate(int fd, int mode, off_t offset, off_t length) { return fallocate64(fd, mode, offset, length); }

int posix_fallocate64(int fd, off64_t offset, off64_t length) {
    return fallocate64(fd, 0, offset, length) == 0 ? 0 : errno;
}

int posix_fallocate(int fd, off_t offset, off_t length) { return posix_fallocate64(fd, offset, length); }

/* ---- syncing ---- */

static int64_t before_sync(int fd) {
    enter();
    int64_t call = calls++;
    append((struct record){.kind = SYNC_BEGIN, .fd = fd, .a = call}, NULL, NULL, NULL, 0);
    leave();
    return call;
}

static int after_sync(int64_t call, int result) {
    int error = errno;
    if (result == 0) {
        enter();
        append((struct record){.kind = SYNC_END, .fd = -1, .a = call}, NULL, NULL, NULL, 0);
        leave();
    }
    errno = error;
    return result;
}

int fsync(int fd) {
    REAL(fsync);
    if (!watches(fd)) return real_fsync(fd);
    int64_t call = before_sync(fd);
    return after_sync(call, real_fsync(fd));
}

int fdatasync(int fd) {
    REAL(fdatasync);
    if (!watches(fd)) return real_fdatasync(fd);
    int64_t call = before_sync(fd);
    return after_sync(call, real_fdatasync(fd));
}

int syncfs(int fd) {
    REAL(syncfs);
    if (watches(fd)) give_up("a sync of everything", "syncfs");
    return real_syncfs(fd);
}

/* ---- names ---- */

static int rename_at(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    char path[PATH_MAX], target[PATH_MAX];
    int leaves = resolve(from_dir, from, path), comes = resolve(to_dir, to, target);
    if (!leaves && !comes) return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    if (!leaves || !comes) give_up("a file moves in or out", target);
    if (flags & ~(unsigned)RENAME_NOREPLACE) give_up("a flag that is not known here", "renameat2");
    enter();
    int result = (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    if (result == 0) append((struct record){.kind = RENAME, .fd = -1}, path, target, NULL, 0);
    leave();
    return result;
}

int rename(const char *from, const char *to) { return rename_at(AT_FDCWD, from, AT_FDCWD, to, 0); }

int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    return rename_at(from_dir, from, to_dir, to, 0);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    return rename_at(from_dir, from, to_dir, to, flags);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    char path[PATH_MAX], target[PATH_MAX];
    int leaves = resolve(from_dir, from, path), comes = resolve(to_dir, to, target);
    if (!leaves && !comes) return (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
    if (!leaves || !comes || (flags & AT_EMPTY_PATH)) give_up("a link whose file is not known here", target);
    enter();
    int result = (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
    if (result == 0) append((struct record){.kind = LINK, .fd = -1}, path, target, NULL, 0);
    leave();
    return result;
}

int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int symlinkat(const char *to, int dir, const char *name) {
    char path[PATH_MAX];
    if (resolve(dir, name, path)) give_up("a symbolic link", path);
    return (int)syscall(SYS_symlinkat, to, dir, name);
}

int symlink(const char *to, const char *name) { return symlinkat(to, AT_FDCWD, name); }

int unlinkat(int dir, const char *name, int flags) {
    char path[PATH_MAX];
    if (!resolve(dir, name, path)) return (int)syscall(SYS_unlinkat, dir, name, flags);
    enter();
    int result = (int)syscall(SYS_unlinkat, dir, name, flags);
    if (result == 0) append((struct record){.kind = UNLINK, .fd = -1}, path, NULL, NULL, 0);
    leave();
    return result;
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }

int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int remove(const char *name) {
    int result = unlink(name);
    return result != 0 && errno == EISDIR ? rmdir(name) : result;
}

int mkdirat(int dir, const char *name, mode_t mode) {
    char path[PATH_MAX];
    if (!resolve(dir, name, path)) return (int)syscall(SYS_mkdirat, dir, name, mode);
    enter();
    int result = (int)syscall(SYS_mkdirat, dir, name, mode);
    if (result == 0) append((struct record){.kind = MKDIR, .fd = -1}, path, NULL, NULL, 0);
    leave();
    return result;
}

int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int bind(int fd, const struct sockaddr *address, socklen_t size_bytes) {
    REAL(bind);
    char path[PATH_MAX];
    const struct sockaddr_un *local = (const struct sockaddr_un *)address;
    if (address->sa_family != AF_UNIX || size_bytes <= sizeof(sa_family_t) || local->sun_path[0] == 0
        || !resolve(AT_FDCWD, local->sun_path, path))
        return real_bind(fd, address, size_bytes);
    enter();
    int result = real_bind(fd, address, size_bytes);
    if (result == 0) append((struct record){.kind = SOCKET, .fd = -1}, path, NULL, NULL, 0);
    leave();
    return result;
}
