// What stands before an elementwise kernel for nvcc, in the terms of CuPy's own carray.cuh.

#define KERNEL __global__
#define CUPY_FOR(i, n) \
  for (ptrdiff_t i = static_cast<ptrdiff_t>(blockIdx.x) * blockDim.x + threadIdx.x; \
       i < (n); i += static_cast<ptrdiff_t>(blockDim.x) * gridDim.x)
struct CIndexer {
  ptrdiff_t n, at;
  __device__ ptrdiff_t size() const { return n; }
  __device__ void set(ptrdiff_t i) { at = i; }
  __device__ ptrdiff_t get() const { return at; }
};
template <typename T> class CArray {
  T* data_; ptrdiff_t size_, shape_[2], strides_[2];
public:
  __device__ ptrdiff_t size() const { return size_; }
  __device__ const T& operator[](ptrdiff_t i) const {
    const ptrdiff_t offset = strides_[1] * (i % shape_[1]) + strides_[0] * (i / shape_[1]);
    return *reinterpret_cast<const T*>(reinterpret_cast<const char*>(data_) + offset);
  }
  __device__ T& operator[](ptrdiff_t i) {
    return const_cast<T&>(const_cast<const CArray&>(*this)[i]);
  }
};
