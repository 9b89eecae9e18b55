/* Makes one call of a program fail, or kills the program at it. Loaded with LD_PRELOAD, so that the program runs as it is.

   Counted are calls that change files below a folder, and, if asked for, what is sent to sockets, in their order:

     FAULT_DIR      the folder, an absolute path without symbolic links
     FAULT_SOCKETS  count what is sent to sockets too
     FAULT_LOG      a file that gets a line for each counted call: its name, and a path
     FAULT_AT       the number of the call at which it happens, from 1; without it calls are only counted
     FAULT_MODE     kill    the process ends before the call; of a write half is written
                    lose    the same, and data that was not made durable is lost, as in a power cut
                    full    from this call on nothing can be created or written: ENOSPC; of the first write half is written
                    fail    this one call fails: EIO

   A call that is counted while another one is must wait: numbers are then those of the log. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long count;
static int full;

/* Files with data that is not durable yet: a handle of our own, and the length that is durable. */
static struct { dev_t dev; ino_t ino; int fd; off_t length; } dirty[256];
static int dirty_count;

static const char *setting(const char *name) { return getenv(name) ? getenv(name) : ""; }

static int is_below(const char *path) {
    const char *dir = setting("FAULT_DIR");
    size_t length = strlen(dir);
    return length && !strncmp(path, dir, length) && (path[length] == '/' || !path[length]);
}

/* The path of a name relative to a folder handle. */
static const char *path_at(int at, const char *name, char *out) {
    char link[64];
    ssize_t length = 0;
    if (name[0] == '/') return name;
    if (at == AT_FDCWD) {
        if (!getcwd(out, PATH_MAX)) return name;
        length = strlen(out);
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        length = readlink(link, out, PATH_MAX - 1);
        if (length < 0) return name;
    }
    snprintf(out + length, 2 * PATH_MAX - length, "%s%s", *name ? "/" : "", name);
    return out;
}

static void note(const char *name, const char *path) {
    char line[3 * PATH_MAX];
    const char *log = setting("FAULT_LOG");
    if (!*log) return;
    int length = snprintf(line, sizeof line, "%s %s\n", name, path);
    int fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) return;
    syscall(SYS_write, fd, line, length);
    syscall(SYS_close, fd);
}

static void die(void) {
    if (!strcmp(setting("FAULT_MODE"), "lose"))
        for (int i = 0; i < dirty_count; i++) syscall(SYS_ftruncate, dirty[i].fd, dirty[i].length);
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

enum { GO_ON, HALF_THEN_DIE, HALF, REFUSE };

/* Counts a call and says what is to be done. The lock is held until `done`. */
static int begin(const char *name, const char *path, int needs_room, int is_write) {
    pthread_mutex_lock(&lock);
    count++;
    note(name, path);
    const char *mode = setting("FAULT_MODE");
    int here = *setting("FAULT_AT") && atol(setting("FAULT_AT")) == count;
    if (here && (!strcmp(mode, "kill") || !strcmp(mode, "lose"))) {
        if (is_write) return HALF_THEN_DIE;
        die();
    }
    if (here && !strcmp(mode, "fail")) {
        errno = EIO;
        return REFUSE;
    }
    if (here && !strcmp(mode, "full")) {
        full = 1;
        if (is_write) return HALF;
    }
    if (full && needs_room) {
        errno = ENOSPC;
        return REFUSE;
    }
    return GO_ON;
}

static void done(void) { pthread_mutex_unlock(&lock); }

/* Keeps the length that a file had before it was written to. */
static void mark_dirty(int fd) {
    struct stat s;
    if (fstat(fd, &s)) return;
    for (int i = 0; i < dirty_count; i++)
        if (dirty[i].dev == s.st_dev && dirty[i].ino == s.st_ino) return;
    if (dirty_count == 256) abort();
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int own = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (own < 0) return;
    dirty[dirty_count].dev = s.st_dev;
    dirty[dirty_count].ino = s.st_ino;
    dirty[dirty_count].fd = own;
    dirty[dirty_count++].length = s.st_size;
}

static void mark_durable(int fd) {
    struct stat s;
    if (fstat(fd, &s)) return;
    for (int i = 0; i < dirty_count; i++)
        if (dirty[i].dev == s.st_dev && dirty[i].ino == s.st_ino) {
            syscall(SYS_close, dirty[i].fd);
            dirty[i] = dirty[--dirty_count];
            return;
        }
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* A call on a path: `run` is the call itself. */
#define ON_PATH(name, at, path, needs_room, run)                             \
    char buffer[2 * PATH_MAX];                                               \
    const char *whole = path_at(at, path, buffer);                           \
    if (!is_below(whole)) return run;                                        \
    int result = begin(name, whole, needs_room, 0) == REFUSE ? -1 : run;     \
    int error = errno;                                                       \
    done();                                                                  \
    errno = error;                                                           \
    return result;

int rename(const char *from, const char *to) {
    ON_PATH("rename", AT_FDCWD, to, 0, REAL(rename)(from, to))
}
int renameat(int at, const char *from, int to_at, const char *to) {
    ON_PATH("rename", to_at, to, 0, REAL(renameat)(at, from, to_at, to))
}
int renameat2(int at, const char *from, int to_at, const char *to, unsigned flags) {
    ON_PATH("rename", to_at, to, 0, REAL(renameat2)(at, from, to_at, to, flags))
}
int unlink(const char *path) { ON_PATH("unlink", AT_FDCWD, path, 0, REAL(unlink)(path)) }
int unlinkat(int at, const char *path, int flags) {
    ON_PATH("unlink", at, path, 0, REAL(unlinkat)(at, path, flags))
}
int rmdir(const char *path) { ON_PATH("rmdir", AT_FDCWD, path, 0, REAL(rmdir)(path)) }
int mkdir(const char *path, mode_t mode) { ON_PATH("mkdir", AT_FDCWD, path, 1, REAL(mkdir)(path, mode)) }
int mkdirat(int at, const char *path, mode_t mode) {
    ON_PATH("mkdir", at, path, 1, REAL(mkdirat)(at, path, mode))
}
int link(const char *from, const char *to) { ON_PATH("link", AT_FDCWD, to, 1, REAL(link)(from, to)) }
int linkat(int at, const char *from, int to_at, const char *to, int flags) {
    ON_PATH("link", to_at, to, 1, REAL(linkat)(at, from, to_at, to, flags))
}

int symlink(const char *target, const char *path) {
    ON_PATH("link", AT_FDCWD, path, 1, REAL(symlink)(target, path))
}

static int open_at(int at, const char *path, int flags, mode_t mode) {
    struct stat s;
    char buffer[2 * PATH_MAX];
    const char *whole = path_at(at, path, buffer);
    int changes = flags & (O_CREAT | O_TRUNC) && is_below(whole);
    if (!changes) return syscall(SYS_openat, at, path, flags, mode);
    int is_there = !stat(whole, &s);
    int refused = begin(is_there ? "open" : "create", whole, !is_there, 0) == REFUSE;
    int result = refused ? -1 : syscall(SYS_openat, at, path, flags, mode);
    int error = errno;
    done();
    errno = error;
    return result;
}

static mode_t mode_of(int flags, va_list list) {
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, mode_t) : 0;
}
#define OPEN(name, at, parameters)                    \
    int name parameters {                             \
        va_list list;                                 \
        va_start(list, flags);                        \
        mode_t mode = mode_of(flags, list);           \
        va_end(list);                                 \
        return open_at(at, path, flags, mode);        \
    }
OPEN(open, AT_FDCWD, (const char *path, int flags, ...))
OPEN(open64, AT_FDCWD, (const char *path, int flags, ...))
OPEN(openat, at, (int at, const char *path, int flags, ...))
OPEN(openat64, at, (int at, const char *path, int flags, ...))

/* The path of a handle if it is of a counted file, or what the system calls a socket. */
static const char *counted(int fd, char *out) {
    const char *path = path_at(fd, "", out);
    int is_socket = *setting("FAULT_SOCKETS") && !strncmp(path, "socket:", 7);
    return is_socket || is_below(path) ? path : NULL;
}

static ssize_t cut_write(int fd, const void *bytes, size_t length, off_t at) {
    if (at < 0) return syscall(SYS_write, fd, bytes, length);
    return syscall(SYS_pwrite64, fd, bytes, length, at);
}

static ssize_t write_at(const char *name, int fd, const void *bytes, size_t length, off_t at) {
    char buffer[2 * PATH_MAX];
    const char *path = counted(fd, buffer);
    if (!path || !length) return cut_write(fd, bytes, length, at);
    ssize_t result = -1;
    int what = begin(name, path, 1, 1);
    if (what != REFUSE) mark_dirty(fd);
    if (what == GO_ON) result = cut_write(fd, bytes, length, at);
    if (what == HALF || what == HALF_THEN_DIE) {
        errno = ENOSPC;
        if (length / 2) result = cut_write(fd, bytes, length / 2, at);
        if (what == HALF_THEN_DIE) die();
    }
    int error = errno;
    done();
    errno = error;
    return result;
}

ssize_t write(int fd, const void *bytes, size_t length) { return write_at("write", fd, bytes, length, -1); }
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    return write_at("write", fd, bytes, length, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) {
    return write_at("write", fd, bytes, length, at);
}
ssize_t writev(int fd, const struct iovec *parts, int number) {
    char buffer[2 * PATH_MAX];
    if (!counted(fd, buffer)) return syscall(SYS_writev, fd, parts, number);
    /* A short write is allowed: the caller writes the rest. */
    for (int i = 0; i < number; i++)
        if (parts[i].iov_len) return write_at("write", fd, parts[i].iov_base, parts[i].iov_len, -1);
    return 0;
}
/* Rust's standard library then reads and writes. */
ssize_t copy_file_range(int in, off_t *in_at, int out, off_t *out_at, size_t length, unsigned flags) {
    char buffer[2 * PATH_MAX];
    if (counted(out, buffer)) {
        errno = ENOSYS;
        return -1;
    }
    return syscall(SYS_copy_file_range, in, in_at, out, out_at, length, flags);
}
ssize_t sendfile(int out, int in, off_t *at, size_t length) {
    char buffer[2 * PATH_MAX];
    if (counted(out, buffer)) {
        errno = ENOSYS;
        return -1;
    }
    return syscall(SYS_sendfile, out, in, at, length);
}
ssize_t sendfile64(int out, int in, off_t *at, size_t length) { return sendfile(out, in, at, length); }

/* A call on a handle. */
#define ON_HANDLE(name, fd, run)                                             \
    char buffer[2 * PATH_MAX];                                               \
    const char *path = counted(fd, buffer);                                  \
    if (!path) return run;                                                   \
    int result = begin(name, path, 0, 0) == REFUSE ? -1 : run;               \
    int error = errno;

int fsync(int fd) {
    ON_HANDLE("fsync", fd, syscall(SYS_fsync, fd))
    if (!result) mark_durable(fd);
    done();
    errno = error;
    return result;
}
int fdatasync(int fd) {
    ON_HANDLE("fsync", fd, syscall(SYS_fdatasync, fd))
    if (!result) mark_durable(fd);
    done();
    errno = error;
    return result;
}
int ftruncate(int fd, off_t length) {
    ON_HANDLE("truncate", fd, syscall(SYS_ftruncate, fd, length))
    done();
    errno = error;
    return result;
}
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

ssize_t send(int fd, const void *bytes, size_t length, int flags) {
    if (!*setting("FAULT_SOCKETS")) return sendto(fd, bytes, length, flags, NULL, 0);
    return write_at("write", fd, bytes, length, -1);
}
