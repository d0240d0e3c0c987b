// What stands before an elementwise kernel on the host.
//
// The loop runs backwards: on a GPU no order of the indices may be relied on either. An index out of
// range leaves the kernel by a jump, as the compiler is told that there are no exceptions.

typedef __PTRDIFF_TYPE__ ptrdiff_t;
#define __device__
#define KERNEL static __attribute__((noinline))
#define CUPY_FOR(i, n) for (ptrdiff_t i = (n); i-- > 0;)
struct OutOfRange { const char* name; ptrdiff_t index; ptrdiff_t size; };
static OutOfRange out_of_range;
static void* escape[5];
[[noreturn]] __attribute__((noinline)) static void fail(OutOfRange what) {
  out_of_range = what;
  __builtin_longjmp(escape, 1);
}
struct Argument { void* data; ptrdiff_t size; ptrdiff_t ndim; ptrdiff_t dims[16]; };
struct CIndexer {
  ptrdiff_t n, at;
  ptrdiff_t size() const { return n; }
  void set(ptrdiff_t i) { at = i; }
  ptrdiff_t get() const { return at; }
};
template <typename T> class CArray {
  const Argument& a; const char* name;
public:
  CArray(const void* argument, const char* name_)
    : a(*static_cast<const Argument*>(argument)), name(name_) {}
  ptrdiff_t size() const { return a.size; }
  const T& operator[](ptrdiff_t index) const {
    if (index < 0 || index >= a.size) fail({name, index, a.size});
    ptrdiff_t offset = 0;
    for (ptrdiff_t d = a.ndim; d-- > 0;) {
      offset += index % a.dims[d] * a.dims[8 + d];
      index /= a.dims[d];
    }
    return *reinterpret_cast<const T*>(static_cast<const char*>(a.data) + offset);
  }
  T& operator[](ptrdiff_t index) {
    return const_cast<T&>(const_cast<const CArray&>(*this)[index]);
  }
};
